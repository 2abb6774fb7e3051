-- Everything that pg_class counts in this database, by what it is; views have no pages.
WITH known (kind) AS (
    VALUES ('catalog'), ('table'), ('partitioned_table'), ('partition'), ('materialized_view'), ('index'), ('toast'),
        ('sequence'), ('view'), ('foreign_table')
),
one AS (
    SELECT
        CASE
            WHEN n.nspname IN ('pg_catalog', 'information_schema') THEN 'catalog'
            WHEN c.relkind = 't' OR n.nspname ~ '^pg_toast' THEN 'toast'
            WHEN c.relkind = 'p' THEN 'partitioned_table'
            WHEN c.relkind = 'r' AND c.relispartition THEN 'partition'
            WHEN c.relkind = 'r' THEN 'table'
            WHEN c.relkind = 'm' THEN 'materialized_view'
            WHEN c.relkind IN ('i', 'I') THEN 'index'
            WHEN c.relkind = 'S' THEN 'sequence'
            WHEN c.relkind = 'v' THEN 'view'
            WHEN c.relkind = 'f' THEN 'foreign_table'
        END AS kind,
        greatest(c.relpages, 0)::float8 * current_setting('block_size')::int AS bytes
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
)
SELECT k.kind AS kind, count(o.kind) AS relations, coalesce(sum(o.bytes), 0) AS bytes
FROM known AS k
LEFT JOIN one AS o ON o.kind = k.kind
GROUP BY k.kind
