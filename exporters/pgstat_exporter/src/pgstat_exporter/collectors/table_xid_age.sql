-- TOAST tables count for their table, partitions for the root of their tree. Catalogs and what sessions left behind of
-- temporary tables hold a database's age up as any other table does.
WITH one AS (
    SELECT
        coalesce(o.oid, c.oid) AS relid,
        age(c.relfrozenxid)::float8 AS xids,
        mxid_age(c.relminmxid)::float8 AS multixacts,
        (SELECT min(option_value::float8) FROM pg_options_to_table(c.reloptions)
            WHERE option_name = 'autovacuum_freeze_max_age') AS own_xids,
        (SELECT min(option_value::float8) FROM pg_options_to_table(c.reloptions)
            WHERE option_name = 'autovacuum_multixact_freeze_max_age') AS own_multixacts
    FROM pg_class AS c
    LEFT JOIN pg_class AS o ON o.reltoastrelid = c.oid AND c.relkind = 't'
    WHERE c.relkind IN ('r', 'm', 't')
)
SELECT
    n.nspname::text AS schemaname,
    r.relname::text AS relname,
    max(o.xids) AS xids,
    max(o.multixacts) AS multixacts,
    -- A table's own setting can only be lower than the server's.
    max(greatest(
        o.xids / least(o.own_xids, current_setting('autovacuum_freeze_max_age')::float8),
        o.multixacts / least(o.own_multixacts, current_setting('autovacuum_multixact_freeze_max_age')::float8)
    )) AS freeze_ratio
FROM one AS o
JOIN pg_class AS c ON c.oid = o.relid
JOIN pg_class AS r ON r.oid = CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid), c.oid) ELSE c.oid END
JOIN pg_namespace AS n ON n.oid = r.relnamespace
GROUP BY n.nspname, r.relname
ORDER BY freeze_ratio DESC, max(o.xids) DESC, n.nspname, r.relname
