-- greatest() passes over NULL, hence the conditions: what is not known is no sample.
WITH position (received, replayed, replayed_time) AS (
    SELECT pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), pg_last_xact_replay_timestamp()
)
SELECT
    (pg_get_wal_replay_pause_state() <> 'not paused')::int AS paused,
    CASE WHEN p.received IS NOT NULL THEN greatest(p.received - p.replayed, 0) END::float8 AS replay_lag,
    CASE WHEN r.latest_end_lsn IS NOT NULL THEN greatest(r.latest_end_lsn - p.replayed, 0) END::float8 AS upstream_lag,
    extract(epoch FROM p.replayed_time)::float8 AS last_replayed,
    CASE
        WHEN p.received = p.replayed THEN 0
        WHEN p.replayed_time IS NOT NULL THEN greatest(extract(epoch FROM clock_timestamp() - p.replayed_time), 0)
    END::float8 AS replay_lag_seconds,
    coalesce((r.status = 'streaming')::int, 0) AS streaming,
    extract(epoch FROM r.last_msg_receipt_time)::float8 AS last_message,
    extract(epoch FROM r.latest_end_time)::float8 AS latest_end,
    f.prefetch AS prefetched,
    f.hit AS prefetch_hits,
    f.skip_init + f.skip_new + f.skip_fpw + f.skip_rep AS prefetch_skipped
FROM pg_stat_recovery_prefetch AS f
CROSS JOIN position AS p
LEFT JOIN pg_stat_wal_receiver AS r ON true
WHERE pg_is_in_recovery()
