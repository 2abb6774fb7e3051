SELECT
    b.checkpoints_timed AS timed,
    b.checkpoints_req AS requested,
    b.checkpoint_write_time / 1000 AS write_seconds,
    b.checkpoint_sync_time / 1000 AS sync_seconds,
    b.buffers_checkpoint AS buffers_written,
    b.buffers_clean AS buffers_clean,
    b.maxwritten_clean AS maxwritten_clean,
    b.buffers_alloc AS buffers_alloc,
    b.buffers_backend AS buffers_backend,
    b.buffers_backend_fsync AS buffers_backend_fsync,
    extract(epoch FROM b.stats_reset)::float8 AS stats_reset,
    extract(epoch FROM c.checkpoint_time)::float8 AS last_checkpoint,
    greatest(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - c.redo_lsn, 0
    )::float8 AS since_checkpoint
FROM pg_stat_bgwriter AS b
CROSS JOIN pg_control_checkpoint() AS c
