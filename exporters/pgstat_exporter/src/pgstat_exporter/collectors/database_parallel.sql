SELECT
    d.datname::text AS datname,
    s.parallel_workers_to_launch AS planned,
    s.parallel_workers_launched AS launched
FROM pg_stat_database AS s
JOIN pg_database AS d ON d.oid = s.datid
WHERE d.datallowconn
