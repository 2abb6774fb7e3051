-- Until version 17 pg_stat_wal counted these writes: not those of a standby's receiver, not the making of files.
WITH io AS (
    SELECT
        sum(writes) AS writes,
        sum(fsyncs) AS syncs,
        sum(write_time) / 1000 AS write_seconds,
        sum(fsync_time) / 1000 AS sync_seconds
    FROM pg_stat_io
    WHERE object = 'wal' AND context = 'normal' AND backend_type <> 'walreceiver'
)
SELECT
    w.wal_records AS records,
    w.wal_fpi AS full_page_images,
    w.wal_bytes AS bytes,
    w.wal_buffers_full AS buffers_full,
    io.writes AS writes,
    io.syncs AS syncs,
    io.write_seconds AS write_seconds,
    io.sync_seconds AS sync_seconds,
    extract(epoch FROM w.stats_reset)::float8 AS stats_reset,
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0' AS position
FROM pg_stat_wal AS w
CROSS JOIN io
