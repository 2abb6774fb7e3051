-- VACUUM itself does not hold the horizon back, so its sessions do not count.
WITH holders (holder, age, prepared) AS (
    SELECT
        CASE WHEN backend_type = 'walsender' THEN 'standby' ELSE 'session' END,
        -- A transaction that wrote something holds it back even between two statements.
        greatest(age(backend_xmin), age(backend_xid)),
        NULL::timestamptz
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND pid NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum AS v)
    UNION ALL
    SELECT 'prepared_transaction', age(transaction), prepared FROM pg_prepared_xacts
    UNION ALL
    SELECT a.holder, a.age, NULL
    FROM pg_replication_slots AS s
    CROSS JOIN LATERAL (
        VALUES ('replication_slot', age(s.xmin)), ('replication_slot_catalog', age(s.catalog_xmin))
    ) AS a (holder, age)
    -- One that was invalidated holds nothing back, whatever its columns still say.
    WHERE s.wal_status IS DISTINCT FROM 'lost'
),
known (holder) AS (
    VALUES ('session'), ('standby'), ('prepared_transaction'), ('replication_slot'), ('replication_slot_catalog')
)
SELECT
    k.holder AS holder,
    coalesce(max(h.age), 0) AS age,
    CASE WHEN k.holder = 'prepared_transaction' THEN count(h.holder) END AS prepared,
    extract(epoch FROM min(h.prepared))::float8 AS oldest_prepared,
    CASE WHEN k.holder = 'session' THEN pg_snapshot_xmax(pg_current_snapshot())::text::float8 END AS next_xid
FROM known AS k
LEFT JOIN holders AS h USING (holder)
GROUP BY k.holder
