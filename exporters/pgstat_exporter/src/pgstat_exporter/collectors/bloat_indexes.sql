-- An estimate for B-trees: the leaves that an index's entries would fill, from the widths of its columns in pg_stats,
-- against the pages that it has. An entry takes a header of 8 bytes (16 with NULLs), 4 for its pointer, and starts at a
-- multiple of 8. Where the server merges equal entries, a key stands once for up to 220 rows of 6 bytes each.
WITH named AS MATERIALIZED (
    SELECT schemaname, tablename, attname, null_frac, avg_width, n_distinct FROM pg_stats WHERE NOT inherited
),
stats AS MATERIALIZED (
    SELECT
        c.oid AS relid,
        a.attnum,
        a.attlen < 0 AS varies,
        s.null_frac,
        s.avg_width,
        -- Negative: the part of the rows; 0: not known.
        CASE WHEN s.n_distinct > 0 THEN s.n_distinct
            ELSE -coalesce(nullif(s.n_distinct, 0), -1) * greatest(c.reltuples, 1) END AS keys
    FROM named AS s
    JOIN pg_namespace AS n ON n.nspname = s.schemaname
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.tablename
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = s.attname
),
merging AS MATERIALIZED (
    SELECT array_agg(o.oid) AS opclasses
    FROM pg_opclass AS o
    JOIN pg_amproc AS m ON m.amprocfamily = o.opcfamily AND m.amproclefttype = o.opcintype
        AND m.amprocrighttype = o.opcintype AND m.amprocnum = 4
),
columns AS (
    SELECT i.indexrelid, s.*
    FROM stats AS s
    JOIN pg_index AS i ON i.indrelid = s.relid AND s.attnum = ANY (i.indkey)
    UNION ALL
    -- An expression's statistics are the index's own.
    SELECT s.relid, s.*
    FROM stats AS s
    JOIN pg_index AS i ON i.indexrelid = s.relid
),
widths AS (
    SELECT
        indexrelid,
        count(*) AS columns,
        CASE WHEN bool_or(null_frac > 0) THEN 16 ELSE 8 END + 4 + CASE
            WHEN bool_or(varies) THEN sum((1 - null_frac) * avg_width) + 3.5
            ELSE ceil(sum((1 - null_frac) * avg_width) / 8) * 8
        END AS entry,
        exp(least(sum(ln(keys)), 700)) AS keys
    FROM columns
    GROUP BY indexrelid
),
one AS (
    SELECT
        CASE WHEN t.relispartition THEN coalesce(pg_partition_root(t.oid), t.oid) ELSE t.oid END AS root_table,
        CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid), c.oid) ELSE c.oid END AS root_index,
        c.relpages::float8 AS pages,
        -- The first page is no leaf; of what stands above the leaves there is next to nothing.
        1 + ceil(
            CASE
                WHEN NOT i.indisunique AND w.keys < c.reltuples AND i.indnatts = i.indnkeyatts
                    AND i.indclass::oid[] <@ (SELECT opclasses FROM merging)
                    THEN w.keys * ceil(c.reltuples / w.keys / 220) * w.entry + 6 * c.reltuples
                ELSE c.reltuples * w.entry
            END / (current_setting('block_size')::int - 40) / coalesce((
                SELECT max(option_value::float8) FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'
            ), 90) * 100
        ) AS needed
    FROM widths AS w
    JOIN pg_index AS i ON i.indexrelid = w.indexrelid
    JOIN pg_class AS c ON c.oid = w.indexrelid AND c.relkind = 'i' AND c.relpages > 10 AND c.reltuples > 0
    JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
    JOIN pg_class AS t ON t.oid = i.indrelid AND t.relpersistence <> 't'
    JOIN pg_namespace AS n ON n.oid = t.relnamespace
    -- Without statistics of every column there is nothing to go by.
    WHERE w.columns = i.indnatts AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
)
SELECT
    n.nspname::text AS schemaname,
    t.relname::text AS relname,
    c.relname::text AS indexrelname,
    sum(greatest(o.pages - o.needed, 0)) * current_setting('block_size')::int AS bytes,
    sum(greatest(o.pages - o.needed, 0)) / sum(o.pages) AS ratio
FROM one AS o
JOIN pg_class AS t ON t.oid = o.root_table
JOIN pg_namespace AS n ON n.oid = t.relnamespace
JOIN pg_class AS c ON c.oid = o.root_index
GROUP BY n.nspname, t.relname, c.relname
ORDER BY sum(greatest(o.pages - o.needed, 0)) DESC, n.nspname, t.relname, c.relname
