-- pg_subscription is shared by all databases; each has its own pg_subscription_rel.
SELECT
    s.subname::text AS subname,
    s.subenabled::int AS enabled,
    count(w.pid) AS workers,
    -- The apply worker itself: neither a table's first copy nor a parallel helper, which have no times of their own.
    extract(epoch FROM max(w.last_msg_receipt_time) FILTER (WHERE w.relid IS NULL))::float8 AS last_message,
    extract(epoch FROM max(w.latest_end_time) FILTER (WHERE w.relid IS NULL))::float8 AS last_report,
    (max(pg_wal_lsn_diff(w.received_lsn, w.latest_end_lsn)) FILTER (WHERE w.relid IS NULL))::float8 AS unreported,
    (SELECT count(*) FROM pg_subscription_rel AS r WHERE r.srsubid = s.oid) AS tables,
    (SELECT count(*) FROM pg_subscription_rel AS r WHERE r.srsubid = s.oid AND r.srsubstate <> 'r') AS tables_copying
FROM pg_subscription AS s
LEFT JOIN pg_stat_subscription AS w ON w.subid = s.oid
WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY s.oid, s.subname, s.subenabled
ORDER BY s.subname
