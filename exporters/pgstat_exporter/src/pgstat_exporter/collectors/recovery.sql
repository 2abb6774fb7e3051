SELECT
    (pg_get_wal_replay_pause_state() <> 'not paused')::int AS paused,
    greatest(pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn(), 0)::float8 AS replay_lag,
    greatest(r.latest_end_lsn - pg_last_wal_replay_lsn(), 0)::float8 AS upstream_lag,
    extract(epoch FROM pg_last_xact_replay_timestamp())::float8 AS last_replayed,
    CASE
        WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
        ELSE greatest(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)
    END::float8 AS replay_lag_seconds,
    coalesce((r.status = 'streaming')::int, 0) AS streaming,
    extract(epoch FROM r.last_msg_receipt_time)::float8 AS last_message,
    extract(epoch FROM r.latest_end_time)::float8 AS latest_end,
    f.prefetch AS prefetched,
    f.hit AS prefetch_hits,
    f.skip_init + f.skip_new + f.skip_fpw + f.skip_rep AS prefetch_skipped
FROM pg_stat_recovery_prefetch AS f
LEFT JOIN pg_stat_wal_receiver AS r ON true
WHERE pg_is_in_recovery()
