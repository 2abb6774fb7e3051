SELECT s.subname::text AS subname, c.conflict AS conflict, c.conflicts AS conflicts
FROM pg_subscription AS s
JOIN pg_stat_subscription_stats AS t ON t.subid = s.oid
CROSS JOIN LATERAL (VALUES
    ('insert_exists', t.confl_insert_exists),
    ('update_origin_differs', t.confl_update_origin_differs),
    ('update_exists', t.confl_update_exists),
    ('update_missing', t.confl_update_missing),
    ('delete_origin_differs', t.confl_delete_origin_differs),
    ('delete_missing', t.confl_delete_missing),
    ('multiple_unique_conflicts', t.confl_multiple_unique_conflicts)
) AS c (conflict, conflicts)
WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY s.subname, c.conflict
