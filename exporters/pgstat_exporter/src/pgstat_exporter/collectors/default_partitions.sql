-- Counting stops at 10,000 rows, and after the 100 fullest DEFAULT partitions. One that somebody holds under ACCESS
-- EXCLUSIVE, or waits to, is left out; so is one of which row security would hide rows.
WITH RECURSIVE locked AS MATERIALIZED (
    SELECT relation
    FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
),
-- And what is below them, where they are partitioned again; pg_partition_tree() would lock it.
defaults (oid) AS (
    SELECT partdefid FROM pg_partitioned_table
    UNION
    SELECT h.inhrelid FROM defaults AS d JOIN pg_inherits AS h ON h.inhparent = d.oid
),
chosen AS MATERIALIZED (
    SELECT
        coalesce(pg_partition_root(c.oid), c.oid) AS root,
        'SELECT count(*) AS n FROM (SELECT FROM ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
            || ' LIMIT 10000) AS r' AS query
    FROM defaults AS d
    JOIN pg_class AS c ON c.oid = d.oid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    -- Not foreign tables: counting would wait for another server.
    WHERE c.relkind = 'r' AND NOT row_security_active(c.oid) AND c.oid NOT IN (SELECT relation FROM locked)
    ORDER BY pg_stat_get_live_tuples(c.oid) DESC, c.oid
    LIMIT 100
),
counted AS (
    SELECT root, (regexp_match(query_to_xml(query, true, false, '')::text, '<n>(\d+)</n>'))[1]::float8 AS found FROM chosen
)
SELECT n.nspname::text AS schemaname, r.relname::text AS relname, sum(c.found) AS found
FROM counted AS c
JOIN pg_class AS r ON r.oid = c.root
JOIN pg_namespace AS n ON n.oid = r.relnamespace
GROUP BY n.nspname, r.relname
ORDER BY sum(c.found) DESC, n.nspname, r.relname
