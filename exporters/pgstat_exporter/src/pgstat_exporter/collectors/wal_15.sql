SELECT
    wal_records AS records,
    wal_fpi AS full_page_images,
    wal_bytes AS bytes,
    wal_buffers_full AS buffers_full,
    wal_write AS writes,
    wal_sync AS syncs,
    wal_write_time / 1000 AS write_seconds,
    wal_sync_time / 1000 AS sync_seconds,
    extract(epoch FROM stats_reset)::float8 AS stats_reset,
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0' AS position
FROM pg_stat_wal
