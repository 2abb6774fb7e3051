-- Partitions count for the root of their tree.
WITH one AS (
    SELECT
        CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid), c.oid) ELSE c.oid END AS root,
        greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::float8 AS known_rows,
        pg_stat_get_numscans(c.oid)::float8 AS scans,
        pg_stat_get_tuples_returned(c.oid)::float8 AS rows_read
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
)
SELECT
    n.nspname::text AS schemaname,
    r.relname::text AS relname,
    bool_or(r.relkind = 'p') AS partitioned,
    sum(o.known_rows) AS known_rows,
    sum(o.scans) AS seq_scans,
    sum(o.rows_read) AS seq_rows_read
FROM one AS o
JOIN pg_class AS r ON r.oid = o.root
JOIN pg_namespace AS n ON n.oid = r.relnamespace
GROUP BY n.nspname, r.relname
HAVING sum(o.known_rows) >= 10000 AND sum(o.scans) > 0
ORDER BY sum(o.rows_read) DESC, n.nspname, r.relname
