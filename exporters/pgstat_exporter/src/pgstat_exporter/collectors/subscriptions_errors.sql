SELECT
    s.subname::text AS subname,
    t.apply_error_count AS apply_errors,
    t.sync_error_count AS sync_errors,
    extract(epoch FROM t.stats_reset)::float8 AS stats_reset
FROM pg_subscription AS s
JOIN pg_stat_subscription_stats AS t ON t.subid = s.oid
WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY s.subname
