SELECT
    checkpoints_timed AS timed,
    checkpoints_req AS requested,
    checkpoint_write_time / 1000 AS write_seconds,
    checkpoint_sync_time / 1000 AS sync_seconds,
    buffers_checkpoint AS buffers_written,
    buffers_clean AS buffers_clean,
    maxwritten_clean AS maxwritten_clean,
    buffers_alloc AS buffers_alloc,
    buffers_backend AS buffers_backend,
    buffers_backend_fsync AS buffers_backend_fsync,
    extract(epoch FROM stats_reset)::float8 AS stats_reset,
    extract(epoch FROM checkpoint_time)::float8 AS last_checkpoint,
    greatest(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - redo_lsn, 0
    )::float8 AS since_checkpoint
FROM pg_stat_bgwriter
CROSS JOIN pg_control_checkpoint()
