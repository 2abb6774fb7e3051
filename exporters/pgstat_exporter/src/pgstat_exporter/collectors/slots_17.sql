-- Temporary slots are left out: backups name theirs after a process, and they end with it.
WITH position (lsn) AS (
    SELECT CASE
        WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
        ELSE pg_current_wal_lsn()
    END
)
SELECT
    s.slot_name::text AS slot_name,
    s.slot_type AS slot_type,
    s.active::int AS active,
    (greatest(p.lsn, h.restart_lsn) - h.restart_lsn)::float8 AS retained,
    (greatest(p.lsn, s.confirmed_flush_lsn) - s.confirmed_flush_lsn)::float8 AS unconfirmed,
    s.safe_wal_size AS safe_wal,
    (coalesce(s.wal_status = 'lost', false) OR s.invalidation_reason IS NOT NULL)::int AS invalidated,
    extract(epoch FROM s.inactive_since)::float8 AS inactive_since,
    s.synced::int AS synced,
    age(h.xmin) AS xmin_age,
    age(h.catalog_xmin) AS catalog_xmin_age,
    t.spill_txns AS spill_txns,
    t.spill_count AS spill_count,
    t.spill_bytes AS spill_bytes,
    t.stream_txns AS stream_txns,
    t.stream_bytes AS stream_bytes,
    t.total_txns AS total_txns,
    t.total_bytes AS total_bytes
FROM pg_replication_slots AS s
CROSS JOIN position AS p
-- One that was invalidated holds nothing back, whatever its columns still say.
LEFT JOIN LATERAL (SELECT s.restart_lsn, s.xmin, s.catalog_xmin WHERE s.wal_status IS DISTINCT FROM 'lost') AS h ON true
LEFT JOIN pg_stat_replication_slots AS t ON t.slot_name = s.slot_name
WHERE NOT s.temporary
