-- pg_get_expr without a table deparses a bound and opens nothing; with one it would lock it.
WITH one AS MATERIALIZED (
    SELECT
        p.partrelid AS parent,
        c.relkind <> 'p' AS leaf,
        c.oid = p.partdefid AS is_default,
        p.partstrat = 'r' AND a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype) AS by_time,
        p.partstrat = 'r' AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
            AS by_number,
        regexp_match(
            pg_get_expr(c.relpartbound, 0), '^FOR VALUES FROM \(''?([^'',)]+).*\) TO \(''?([^'',)]+)'
        ) AS bounds,
        c.reltuples > 0 OR pg_stat_get_live_tuples(c.oid) > 0 AS used
    FROM pg_partitioned_table AS p
    JOIN pg_inherits AS h ON h.inhparent = p.partrelid
    JOIN pg_class AS c ON c.oid = h.inhrelid AND c.relispartition
    -- Of several key columns the first.
    LEFT JOIN pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
),
-- What is out of the range of timestamptz (dates reach further) or float8 counts as infinite; tiny fractions are cut.
numbers AS (
    SELECT
        parent, leaf, is_default, used, by_time, by_number,
        CASE
            WHEN bounds[1] = 'MINVALUE' OR by_time AND bounds[1] ~ 'BC$' THEN '-Infinity'
            WHEN by_time AND bounds[1] ~ '^\d{6}' THEN 'Infinity'
            WHEN by_time THEN extract(epoch FROM bounds[1]::timestamptz)::float8
            WHEN by_number AND abs(bounds[1]::numeric) > 1e308 THEN sign(bounds[1]::numeric) * 'Infinity'::float8
            WHEN by_number THEN round(bounds[1]::numeric, 300)::float8
        END AS low,
        CASE
            WHEN bounds[2] = 'MAXVALUE' OR by_time AND bounds[2] ~ '^\d{6}' THEN 'Infinity'
            WHEN by_time AND bounds[2] ~ 'BC$' THEN '-Infinity'
            WHEN by_time THEN extract(epoch FROM bounds[2]::timestamptz)::float8
            WHEN by_number AND abs(bounds[2]::numeric) > 1e308 THEN sign(bounds[2]::numeric) * 'Infinity'::float8
            WHEN by_number THEN round(bounds[2]::numeric, 300)::float8
        END AS high
    FROM one
),
reached AS (
    SELECT *, max(high) FILTER (WHERE used) OVER (PARTITION BY parent) AS used_to FROM numbers
),
whole AS (
    SELECT
        parent,
        count(*) FILTER (WHERE leaf) AS partitions,
        count(*) FILTER (WHERE is_default) AS defaults,
        max(high) FILTER (WHERE by_time) AS time_end,
        (array_agg(high - low ORDER BY high DESC) FILTER (WHERE by_time AND high - low < 'Infinity'))[1] AS width,
        max(high) FILTER (WHERE by_number) AS number_end,
        CASE WHEN bool_and(leaf) AND count(high) > 0 THEN
            count(*) FILTER (WHERE high > coalesce(used_to, '-Infinity'))
        END AS ahead
    FROM reached
    GROUP BY parent
)
SELECT
    n.nspname::text AS schemaname,
    r.relname::text AS relname,
    sum(w.partitions)::float8 AS partitions,
    sum(w.defaults)::float8 AS defaults,
    -- Where partitions are partitioned again, the one that ends first.
    min(w.time_end) AS time_end,
    min(w.width) AS width,
    min(w.number_end) AS number_end,
    min(w.ahead) AS ahead
FROM whole AS w
JOIN pg_class AS r ON r.oid = coalesce(pg_partition_root(w.parent), w.parent)
JOIN pg_namespace AS n ON n.oid = r.relnamespace
GROUP BY n.nspname, r.relname
ORDER BY sum(w.partitions) DESC, n.nspname, r.relname
