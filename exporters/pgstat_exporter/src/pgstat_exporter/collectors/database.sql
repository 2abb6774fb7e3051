SELECT
    d.datname::text AS datname,
    s.xact_commit AS commits,
    s.xact_rollback AS rollbacks,
    s.blks_hit AS blocks_hit,
    s.blks_read AS blocks_read,
    s.blk_read_time / 1000 AS block_read_seconds,
    s.blk_write_time / 1000 AS block_write_seconds,
    s.tup_returned AS rows_returned,
    s.tup_fetched AS rows_fetched,
    s.tup_inserted AS rows_inserted,
    s.tup_updated AS rows_updated,
    s.tup_deleted AS rows_deleted,
    s.conflicts AS conflicts,
    s.deadlocks AS deadlocks,
    s.temp_files AS temp_files,
    s.temp_bytes AS temp_bytes,
    s.checksum_failures AS checksum_failures,
    s.sessions AS sessions,
    s.sessions_abandoned AS sessions_abandoned,
    s.sessions_fatal AS sessions_fatal,
    s.sessions_killed AS sessions_killed,
    s.session_time / 1000 AS session_seconds,
    s.active_time / 1000 AS active_seconds,
    s.idle_in_transaction_time / 1000 AS idle_in_transaction_seconds,
    extract(epoch FROM s.stats_reset)::float8 AS stats_reset
FROM pg_stat_database AS s
JOIN pg_database AS d ON d.oid = s.datid
WHERE d.datallowconn
