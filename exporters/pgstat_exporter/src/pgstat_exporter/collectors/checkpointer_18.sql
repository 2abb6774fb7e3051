-- From version 16 on pg_stat_bgwriter counts an extension by many pages as one, and from 17 on none. Here each page
-- that a session wrote or added counts, as it did in version 15.
WITH io AS (
    SELECT
        sum(coalesce(write_bytes, 0) + coalesce(extend_bytes, 0)) / current_setting('block_size')::int AS buffers_backend,
        sum(fsyncs) AS buffers_backend_fsync
    FROM pg_stat_io
    WHERE object = 'relation' AND backend_type NOT IN ('checkpointer', 'background writer')
)
SELECT
    k.num_timed AS timed,
    k.num_requested AS requested,
    k.num_done AS done,
    k.slru_written AS slru_written,
    k.restartpoints_timed AS restartpoints_timed,
    k.restartpoints_req AS restartpoints_requested,
    k.restartpoints_done AS restartpoints_done,
    k.write_time / 1000 AS write_seconds,
    k.sync_time / 1000 AS sync_seconds,
    k.buffers_written AS buffers_written,
    b.buffers_clean AS buffers_clean,
    b.maxwritten_clean AS maxwritten_clean,
    b.buffers_alloc AS buffers_alloc,
    io.buffers_backend AS buffers_backend,
    io.buffers_backend_fsync AS buffers_backend_fsync,
    extract(epoch FROM k.stats_reset)::float8 AS stats_reset,
    extract(epoch FROM c.checkpoint_time)::float8 AS last_checkpoint,
    greatest(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - c.redo_lsn, 0
    )::float8 AS since_checkpoint
FROM pg_stat_checkpointer AS k
CROSS JOIN pg_stat_bgwriter AS b
CROSS JOIN pg_control_checkpoint() AS c
CROSS JOIN io
