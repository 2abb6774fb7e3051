SELECT
    v.datname::text AS datname,
    CASE WHEN v.datname = current_database() THEN v.relid::regclass::text ELSE v.relid::text END AS relation,
    v.index_vacuum_count AS index_passes,
    v.indexes_processed AS indexes_processed,
    v.delay_time / 1000 AS delay_seconds,
    v.dead_tuple_bytes::float8 / nullif(v.max_dead_tuple_bytes, 0) AS dead_items
FROM pg_stat_progress_vacuum AS v
JOIN pg_stat_activity AS a ON a.pid = v.pid AND a.query_start < clock_timestamp() - interval '5 seconds'
