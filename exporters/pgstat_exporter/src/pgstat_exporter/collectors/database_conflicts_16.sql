SELECT c.datname::text AS datname, v.cause AS cause, v.conflicts AS conflicts
FROM pg_stat_database_conflicts AS c
JOIN pg_database AS d ON d.oid = c.datid
CROSS JOIN LATERAL (
    VALUES
        ('tablespace', c.confl_tablespace), ('lock', c.confl_lock), ('snapshot', c.confl_snapshot),
        ('bufferpin', c.confl_bufferpin), ('deadlock', c.confl_deadlock),
        ('logical_slot', c.confl_active_logicalslot)
) AS v (cause, conflicts)
WHERE d.datallowconn AND pg_is_in_recovery()
