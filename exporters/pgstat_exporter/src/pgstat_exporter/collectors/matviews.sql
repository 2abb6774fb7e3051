-- PostgreSQL keeps no time of a refresh. `messwarte migrate refresh` notes each in messwarte.mv_refresh_log, which is
-- read where it is there, may be read, and is not held by an ALTER TABLE or the like. Nor must it be a trap: policies and
-- casts of whoever made a table of this name would be run with the rights of the monitoring role.
WITH log AS MATERIALIZED (
    SELECT c.oid
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'messwarte' AND c.relname = 'mv_refresh_log' AND c.relkind = 'r'
        AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
        AND set_config('row_security', 'off', true) = 'off' AND NOT row_security_active(c.oid)
        AND NOT EXISTS (
            SELECT FROM pg_attribute AS a
            JOIN pg_type AS y ON y.oid = a.atttypid
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND y.typnamespace <> 'pg_catalog'::regnamespace
        )
        AND NOT EXISTS (
            SELECT FROM pg_locks AS l
            WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        )
),
-- The one way to read a table that may not exist. Hexadecimal digits need no escapes in XML, nor a parser of it.
answer AS MATERIALIZED (
    SELECT query_to_xml(
        'SELECT encode(convert_to(json_agg(r)::text, ''UTF8''), ''hex'') AS n
        FROM (
            SELECT view, rank() OVER newest, error IS NULL AS good, extract(epoch FROM started_at) AS started, seconds, rows
            FROM ONLY messwarte.mv_refresh_log
            WINDOW newest AS (PARTITION BY view, error IS NULL ORDER BY started_at DESC, id DESC)
        ) AS r
        WHERE rank = 1', false, false, ''
    )::text AS xml
    FROM log
),
noted AS (
    SELECT
        r.view,
        max(r.started) FILTER (WHERE r.good) AS started,
        max(r.seconds) FILTER (WHERE r.good) AS seconds,
        max(r.rows) FILTER (WHERE r.good) AS rows,
        -- The newest of all, was it one that failed?
        (max(r.started) FILTER (WHERE NOT r.good) > coalesce(max(r.started) FILTER (WHERE r.good), 0))::int AS failed
    FROM answer AS a
    CROSS JOIN convert_from(decode((regexp_match(a.xml, '<n>([0-9a-f]+)</n>'))[1], 'hex'), 'UTF8') AS text
    CROSS JOIN json_to_recordset(text::json) AS r (view text, good bool, started float8, seconds float8, rows float8)
    GROUP BY r.view
)
SELECT
    n.nspname::text AS schemaname,
    c.relname::text AS relname,
    c.relispopulated::int AS populated,
    g.started AS refreshed,
    g.seconds AS seconds,
    g.rows AS rows_then,
    CASE WHEN g.view IS NOT NULL THEN coalesce(g.failed, 0) END AS failed
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN noted AS g ON g.view = CASE WHEN n.nspname = 'public' THEN '' ELSE n.nspname || '.' END || c.relname
WHERE c.relkind = 'm'
ORDER BY g.started NULLS FIRST, n.nspname, c.relname
