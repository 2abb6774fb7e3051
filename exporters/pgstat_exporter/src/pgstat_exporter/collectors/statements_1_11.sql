-- false: without the texts, which would be read from disk whole. One series for all users, nested or not. Types are
-- exactly those of pg_catalog's operators: the schema of the extension must not offer any that fit better.
SELECT
    s.queryid::text AS queryid,
    d.datname::text AS datname,
    sum(s.calls)::float8 AS calls,
    sum(s.total_exec_time) / 1000::float8 AS seconds,
    sum(s.rows)::float8 AS rows,
    sum(s.plans)::float8 AS plans,
    sum(s.total_plan_time) / 1000::float8 AS plan_seconds,
    sum(s.shared_blks_hit)::float8 AS blocks_hit,
    sum(s.shared_blks_read)::float8 AS blocks_read,
    sum(s.shared_blks_dirtied)::float8 AS blocks_dirtied,
    sum(s.shared_blks_written)::float8 AS blocks_written,
    sum(s.shared_blk_read_time) / 1000::float8 AS block_read_seconds,
    sum(s.shared_blk_write_time) / 1000::float8 AS block_write_seconds,
    sum(s.temp_blks_read)::float8 AS temp_blocks_read,
    sum(s.temp_blks_written)::float8 AS temp_blocks_written,
    sum(s.wal_bytes)::float8 AS wal_bytes,
    sum(s.jit_generation_time + s.jit_inlining_time + s.jit_optimization_time + s.jit_emission_time) / 1000::float8 AS jit_seconds
FROM pg_stat_statements(false) AS s
JOIN pg_database AS d ON d.oid = s.dbid
WHERE s.queryid IS NOT NULL
GROUP BY s.queryid, d.datname
ORDER BY sum(s.total_exec_time) DESC, s.queryid
