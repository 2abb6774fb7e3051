-- Three faults, each first as a sum over the database, then index by index. Definitions are compared as they are
-- stored (where the words of an expression stood in its statement aside): pg_get_indexdef would lock the table.
-- A concurrent build is known by its table (at times by that one's TOAST table): of its indexes it names one at a time.
WITH building AS MATERIALIZED (
    SELECT relid
    FROM pg_stat_progress_create_index
    WHERE datname = current_database() AND command LIKE '% CONCURRENTLY'
),
one AS MATERIALIZED (
    SELECT
        n.nspname,
        CASE WHEN t.relispartition THEN coalesce(pg_partition_root(t.oid), t.oid) ELSE t.oid END AS root_table,
        CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid), c.oid) ELSE c.oid END AS root_index,
        greatest(c.relpages, 0)::float8 * current_setting('block_size')::int AS bytes,
        pg_stat_get_numscans(c.oid) AS scans,
        c.relkind = 'i' AND NOT (i.indisunique OR i.indisexclusion OR i.indisreplident) AS dispensable,
        i.indisvalid AND i.indisready AND i.indislive AS valid,
        EXISTS (SELECT FROM building AS b WHERE b.relid IN (t.oid, t.reltoastrelid)) AS is_built,
        c.relkind = 'i' AND i.indisvalid AND NOT i.indisexclusion
            AND row_number() OVER same > 1
            AND (NOT i.indisunique OR first_value(i.indnullsnotdistinct) OVER same = i.indnullsnotdistinct) AS duplicate
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_class AS t ON t.oid = i.indrelid AND t.relpersistence <> 't'
    JOIN pg_namespace AS n ON n.oid = t.relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    WINDOW same AS (
        PARTITION BY i.indrelid, c.relam, i.indisvalid, i.indnkeyatts, i.indkey::text, i.indclass::text,
            i.indcollation::text, i.indoption::text, regexp_replace(i.indexprs::text, ':location -?\d+', '', 'g'),
            regexp_replace(i.indpred::text, ':location -?\d+', '', 'g')
        -- The first of each is the one to keep.
        ORDER BY i.indisprimary DESC, i.indisunique DESC, i.indisreplident DESC, i.indexrelid
    )
),
found AS (
    SELECT root_table, root_index, 'unused' AS fault, sum(bytes) AS bytes
    FROM one
    WHERE valid AND dispensable
    GROUP BY root_table, root_index
    HAVING sum(scans) = 0
    UNION ALL
    SELECT root_table, root_index, 'invalid', sum(bytes)
    FROM one
    WHERE NOT valid AND NOT is_built
    GROUP BY root_table, root_index
    UNION ALL
    SELECT root_table, root_index, 'duplicate', sum(bytes)
    FROM one
    WHERE duplicate
    GROUP BY root_table, root_index
),
named AS (
    SELECT f.fault, f.bytes, n.nspname AS schemaname, t.relname, c.relname AS indexrelname
    FROM found AS f
    JOIN pg_class AS t ON t.oid = f.root_table
    JOIN pg_namespace AS n ON n.oid = t.relnamespace
    JOIN pg_class AS c ON c.oid = f.root_index
),
known (fault) AS (
    VALUES ('unused'), ('duplicate'), ('invalid')
)
SELECT
    k.fault AS fault,
    f.schemaname::text AS schemaname,
    f.relname::text AS relname,
    f.indexrelname::text AS indexrelname,
    CASE WHEN grouping(f.indexrelname) = 1 THEN count(f.indexrelname) END AS indexes,
    CASE WHEN grouping(f.indexrelname) = 1 THEN coalesce(sum(f.bytes), 0) END AS all_bytes,
    CASE WHEN grouping(f.indexrelname) = 0 THEN sum(f.bytes) END AS bytes
FROM known AS k
LEFT JOIN named AS f ON f.fault = k.fault
GROUP BY GROUPING SETS ((k.fault), (k.fault, f.schemaname, f.relname, f.indexrelname))
HAVING grouping(f.indexrelname) = 1 OR f.indexrelname IS NOT NULL
ORDER BY grouping(f.indexrelname) DESC, sum(f.bytes) DESC NULLS LAST, f.schemaname, f.relname, f.indexrelname
