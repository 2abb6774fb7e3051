-- PostgreSQL keeps no time of a refresh. `messwarte migrate refresh` notes each in messwarte.mv_refresh_log, which is
-- read where it is there, may be read, and is not held by an ALTER TABLE or the like.
WITH log AS MATERIALIZED (
    SELECT c.oid
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'messwarte' AND c.relname = 'mv_refresh_log' AND c.relkind = 'r'
        AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
        AND NOT EXISTS (
            SELECT FROM pg_locks AS l
            WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        )
),
noted AS MATERIALIZED (
    SELECT x.*
    FROM log
    CROSS JOIN XMLTABLE('//row' PASSING query_to_xml(
        'SELECT DISTINCT ON (view) view, failed, good.started, good.seconds, good.rows
        FROM (SELECT view, (error IS NOT NULL)::int AS failed, started_at FROM messwarte.mv_refresh_log) AS newest
        LEFT JOIN (
            SELECT DISTINCT ON (view) view, extract(epoch FROM started_at)::float8 AS started, seconds, rows
            FROM messwarte.mv_refresh_log WHERE error IS NULL ORDER BY view, started_at DESC
        ) AS good USING (view)
        ORDER BY view, newest.started_at DESC', false, false, ''
    ) COLUMNS view text, failed int, started float8, seconds float8, rows float8) AS x
)
SELECT
    n.nspname::text AS schemaname,
    c.relname::text AS relname,
    c.relispopulated::int AS populated,
    g.started AS refreshed,
    g.seconds AS seconds,
    g.rows AS rows_then,
    g.failed AS failed
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN noted AS g ON g.view = CASE WHEN n.nspname = 'public' THEN '' ELSE n.nspname || '.' END || c.relname
WHERE c.relkind = 'm'
ORDER BY g.started NULLS FIRST, n.nspname, c.relname
