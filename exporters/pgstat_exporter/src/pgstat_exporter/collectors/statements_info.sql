SELECT dealloc AS deallocations, extract(epoch FROM stats_reset)::float8 AS stats_reset
FROM pg_stat_statements_info
