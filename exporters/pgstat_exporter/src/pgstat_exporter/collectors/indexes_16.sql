-- Indexes of partitions count for the index of the partitioned table, or under their own name where there is none.
WITH one AS (
    SELECT
        CASE WHEN t.relispartition THEN coalesce(pg_partition_root(t.oid), t.oid) ELSE t.oid END AS root_table,
        CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid), c.oid) ELSE c.oid END AS root_index,
        c.relpages::float8 * current_setting('block_size')::int AS bytes,
        pg_stat_get_numscans(c.oid)::float8 AS scans,
        pg_stat_get_lastscan(c.oid) AS last_scan,
        pg_stat_get_tuples_returned(c.oid)::float8 AS entries_read,
        pg_stat_get_tuples_fetched(c.oid)::float8 AS rows_fetched,
        pg_stat_get_blocks_hit(c.oid)::float8 AS hit,
        pg_stat_get_blocks_fetched(c.oid)::float8 AS fetched
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid AND c.relkind = 'i'
    JOIN pg_class AS t ON t.oid = i.indrelid AND t.relkind IN ('r', 'm') AND t.relpersistence <> 't'
    JOIN pg_namespace AS n ON n.oid = t.relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
)
SELECT
    n.nspname::text AS schemaname,
    t.relname::text AS relname,
    c.relname::text AS indexrelname,
    bool_or(c.relkind = 'I') AS partitioned,
    sum(o.bytes) AS bytes,
    sum(o.scans) AS scans,
    extract(epoch FROM max(o.last_scan))::float8 AS last_scan,
    sum(o.entries_read) AS entries_read,
    sum(o.rows_fetched) AS rows_fetched,
    sum(o.hit) AS blocks_hit,
    sum(o.fetched - o.hit) AS blocks_read
FROM one AS o
JOIN pg_class AS t ON t.oid = o.root_table
JOIN pg_namespace AS n ON n.oid = t.relnamespace
JOIN pg_class AS c ON c.oid = o.root_index
GROUP BY n.nspname, t.relname, c.relname
-- In turn the largest and the busiest.
ORDER BY least(
    row_number() OVER (ORDER BY sum(o.bytes) DESC),
    row_number() OVER (ORDER BY sum(o.scans) DESC)
), n.nspname, t.relname, c.relname
