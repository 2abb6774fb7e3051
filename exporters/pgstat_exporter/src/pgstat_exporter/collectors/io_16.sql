-- Most kinds of process never touch most kinds of object: what is all 0 is left out.
SELECT
    backend_type AS backend_type,
    object AS object,
    context AS context,
    reads AS reads,
    reads * op_bytes AS read_bytes,
    read_time / 1000 AS read_seconds,
    writes AS writes,
    writes * op_bytes AS write_bytes,
    write_time / 1000 AS write_seconds,
    extends AS extends,
    extends * op_bytes AS extend_bytes,
    extend_time / 1000 AS extend_seconds,
    hits AS hits,
    evictions AS evictions,
    reuses AS reuses,
    fsyncs AS fsyncs,
    fsync_time / 1000 AS fsync_seconds
FROM pg_stat_io
WHERE greatest(reads, writes, extends, hits, evictions, reuses, fsyncs) > 0
