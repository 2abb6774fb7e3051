-- Partitions count for the root of their tree. Catalog and counters only: no table is opened, no lock waited for.
-- The functions are those under pg_stat_user_tables and pg_statio_user_tables, whose joins take twice the time.
WITH settings AS MATERIALIZED (
    SELECT
        current_setting('block_size')::int8 AS block_size,
        current_setting('autovacuum_vacuum_threshold')::float8 AS vacuum_threshold,
        current_setting('autovacuum_vacuum_scale_factor')::float8 AS vacuum_scale,
        current_setting('autovacuum_vacuum_max_threshold', true)::float8 AS vacuum_max,
        current_setting('autovacuum_analyze_threshold')::float8 AS analyze_threshold,
        current_setting('autovacuum_analyze_scale_factor')::float8 AS analyze_scale
),
options AS MATERIALIZED (
    SELECT
        c.oid AS relid,
        max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_vacuum_threshold')::float8 AS vacuum_threshold,
        max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_vacuum_scale_factor')::float8 AS vacuum_scale,
        max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_vacuum_max_threshold')::float8 AS vacuum_max,
        max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_analyze_threshold')::float8 AS analyze_threshold,
        max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_analyze_scale_factor')::float8 AS analyze_scale
    FROM pg_class AS c
    CROSS JOIN pg_options_to_table(c.reloptions) AS o
    WHERE c.relkind IN ('r', 'm') AND c.reloptions IS NOT NULL
    GROUP BY c.oid
),
indexes AS MATERIALIZED (
    SELECT
        i.indrelid AS relid,
        sum(c.relpages::float8) AS pages,
        sum(pg_stat_get_numscans(c.oid)::float8) AS scans,
        sum(pg_stat_get_tuples_fetched(c.oid)::float8) AS rows_fetched,
        max(pg_stat_get_lastscan(c.oid)) AS last_scan,
        sum(pg_stat_get_blocks_hit(c.oid)::float8) AS hit,
        sum(pg_stat_get_blocks_fetched(c.oid)::float8) AS fetched
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    GROUP BY i.indrelid
),
-- Before its first VACUUM or ANALYZE a table's size is not known.
tables AS (
    SELECT
        c.oid AS relid,
        CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid), c.oid) ELSE c.oid END AS root,
        CASE WHEN c.reltuples >= 0 THEN c.relpages END AS pages,
        CASE WHEN t.reltuples >= 0 THEN t.relpages END AS toast_pages,
        greatest(c.reltuples, 0) AS known_rows,
        pg_stat_get_blocks_hit(t.oid) + ti.hit AS toast_hit,
        pg_stat_get_blocks_fetched(t.oid) + ti.fetched AS toast_fetched
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
    LEFT JOIN indexes AS ti ON ti.relid = t.oid
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
),
-- The server's rules for when autovacuum comes, with the table's own settings.
thresholds AS (
    SELECT
        t.relid,
        least(
            coalesce(o.vacuum_threshold, s.vacuum_threshold) + coalesce(o.vacuum_scale, s.vacuum_scale) * t.known_rows,
            nullif(coalesce(o.vacuum_max, s.vacuum_max), -1)
        ) AS vacuum,
        coalesce(o.analyze_threshold, s.analyze_threshold) + coalesce(o.analyze_scale, s.analyze_scale) * t.known_rows
            AS analyze
    FROM tables AS t
    CROSS JOIN settings AS s
    LEFT JOIN options AS o ON o.relid = t.relid
)
SELECT
    n.nspname::text AS schemaname,
    r.relname::text AS relname,
    bool_or(r.relkind = 'p') AS partitioned,
    sum(t.pages * s.block_size) AS heap_bytes,
    sum(i.pages * s.block_size) AS index_bytes,
    sum(t.toast_pages * s.block_size) AS toast_bytes,
    max(pg_stat_get_dead_tuples(t.relid) / nullif(h.vacuum, 0)) AS vacuum_due,
    max(pg_stat_get_mod_since_analyze(t.relid) / nullif(h.analyze, 0)) AS analyze_due,
    sum(pg_stat_get_numscans(t.relid)::float8) AS seq_scans,
    sum(pg_stat_get_tuples_returned(t.relid)::float8) AS seq_rows_read,
    sum(i.scans) AS index_scans,
    sum(i.rows_fetched + pg_stat_get_tuples_fetched(t.relid)) AS index_rows_fetched,
    sum(pg_stat_get_tuples_inserted(t.relid)::float8) AS rows_inserted,
    sum(pg_stat_get_tuples_updated(t.relid)::float8) AS rows_updated,
    sum(pg_stat_get_tuples_hot_updated(t.relid)::float8) AS rows_hot_updated,
    sum(pg_stat_get_tuples_newpage_updated(t.relid)::float8) AS rows_newpage_updated,
    sum(pg_stat_get_tuples_deleted(t.relid)::float8) AS rows_deleted,
    sum(pg_stat_get_live_tuples(t.relid)::float8) AS live_rows,
    sum(pg_stat_get_dead_tuples(t.relid)::float8) AS dead_rows,
    sum(pg_stat_get_mod_since_analyze(t.relid)::float8) AS modified_since_analyze,
    sum(pg_stat_get_ins_since_vacuum(t.relid)::float8) AS inserted_since_vacuum,
    extract(epoch FROM max(pg_stat_get_lastscan(t.relid)))::float8 AS last_seq_scan,
    extract(epoch FROM max(i.last_scan))::float8 AS last_index_scan,
    extract(epoch FROM max(pg_stat_get_last_vacuum_time(t.relid)))::float8 AS last_vacuum,
    extract(epoch FROM max(pg_stat_get_last_autovacuum_time(t.relid)))::float8 AS last_autovacuum,
    extract(epoch FROM max(pg_stat_get_last_analyze_time(t.relid)))::float8 AS last_analyze,
    extract(epoch FROM max(pg_stat_get_last_autoanalyze_time(t.relid)))::float8 AS last_autoanalyze,
    sum(pg_stat_get_vacuum_count(t.relid)::float8) AS vacuums,
    sum(pg_stat_get_autovacuum_count(t.relid)::float8) AS autovacuums,
    sum(pg_stat_get_analyze_count(t.relid)::float8) AS analyzes,
    sum(pg_stat_get_autoanalyze_count(t.relid)::float8) AS autoanalyzes,
    sum(pg_stat_get_blocks_hit(t.relid)::float8) AS heap_blocks_hit,
    sum((pg_stat_get_blocks_fetched(t.relid) - pg_stat_get_blocks_hit(t.relid))::float8) AS heap_blocks_read,
    sum(i.hit) AS index_blocks_hit,
    sum(i.fetched - i.hit) AS index_blocks_read,
    sum(t.toast_hit) AS toast_blocks_hit,
    sum(t.toast_fetched - t.toast_hit) AS toast_blocks_read
FROM tables AS t
CROSS JOIN settings AS s
JOIN thresholds AS h ON h.relid = t.relid
JOIN pg_class AS r ON r.oid = t.root
JOIN pg_namespace AS n ON n.oid = r.relnamespace
LEFT JOIN indexes AS i ON i.relid = t.relid
GROUP BY n.nspname, r.relname
-- In turn the largest, the busiest and the most in need of a vacuum.
ORDER BY least(
    row_number() OVER (ORDER BY sum(coalesce(t.pages, 0) + coalesce(i.pages, 0)) DESC),
    row_number() OVER (ORDER BY sum(pg_stat_get_tuples_returned(t.relid) + coalesce(i.rows_fetched, 0)) DESC),
    row_number() OVER (ORDER BY sum(pg_stat_get_dead_tuples(t.relid)::float8) DESC)
), n.nspname, r.relname
