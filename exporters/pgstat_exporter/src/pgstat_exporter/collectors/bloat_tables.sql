-- An estimate: the pages that a table's rows would fill, from their mean widths in pg_stats, against those it has.
-- A row takes a header of 24 bytes (more with a map of NULLs) and 4 for its pointer, and starts at a multiple of 8. What
-- aligning adds between columns is known where both have a fixed width, and taken as half of the most it can be elsewhere.
WITH named AS MATERIALIZED (
    SELECT schemaname, tablename, attname, null_frac, avg_width FROM pg_stats WHERE NOT inherited
),
stats AS MATERIALIZED (
    SELECT c.oid AS relid, a.attnum, s.null_frac, s.avg_width
    FROM named AS s
    JOIN pg_namespace AS n ON n.nspname = s.schemaname
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.tablename
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = s.attname
),
columns AS (
    SELECT
        c.oid AS relid,
        (1 - s.null_frac) * s.avg_width AS width,
        s.null_frac > 0 AS has_nulls,
        a.attlen < 0 AS varies,
        CASE
            WHEN a.attlen < 0 THEN 0
            WHEN lag(a.attlen) OVER earlier < 0 THEN (g.bytes - 1) / 2.0
            ELSE greatest(g.bytes - lag(p.bytes, 1, 8) OVER earlier, 0) / 2.0
        END AS padding
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN (VALUES ('c', 1), ('s', 2), ('i', 4), ('d', 8)) AS g (code, bytes) ON g.code = a.attalign::text
    CROSS JOIN LATERAL (SELECT g.bytes) AS p
    LEFT JOIN stats AS s ON s.relid = c.oid AND s.attnum = a.attnum
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relpages > 10 AND c.reltuples >= 0
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    WINDOW earlier AS (PARTITION BY c.oid ORDER BY a.attnum)
),
widths AS (
    SELECT
        relid,
        CASE WHEN bool_or(has_nulls) THEN ceil((23 + ceil(count(*) / 8.0)) / 8) * 8 ELSE 24 END AS header,
        CASE
            WHEN bool_or(varies OR has_nulls) THEN sum(width + padding) + 3.5
            ELSE ceil(sum(width + padding) / 8) * 8
        END + 4 AS data
    FROM columns
    GROUP BY relid
    -- Without statistics of every column there is nothing to go by.
    HAVING count(width) = count(*)
),
one AS (
    SELECT
        CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid), c.oid) ELSE c.oid END AS root,
        c.relpages::float8 AS pages,
        ceil(c.reltuples / greatest(1, (
            (current_setting('block_size')::int - 24) * coalesce((
                SELECT max(option_value::float8) FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'
            ), 100) / 100
            -- At the end of each page half a row finds no room.
            - (w.header + w.data) / 2
        ) / (w.header + w.data))) AS needed
    FROM widths AS w
    JOIN pg_class AS c ON c.oid = w.relid
)
SELECT
    n.nspname::text AS schemaname,
    r.relname::text AS relname,
    sum(greatest(o.pages - o.needed, 0)) * current_setting('block_size')::int AS bytes,
    sum(greatest(o.pages - o.needed, 0)) / sum(o.pages) AS ratio
FROM one AS o
JOIN pg_class AS r ON r.oid = o.root
JOIN pg_namespace AS n ON n.oid = r.relnamespace
GROUP BY n.nspname, r.relname
ORDER BY sum(greatest(o.pages - o.needed, 0)) DESC, n.nspname, r.relname
