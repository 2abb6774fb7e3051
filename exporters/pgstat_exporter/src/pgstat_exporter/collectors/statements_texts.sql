SELECT DISTINCT ON (queryid) queryid::text AS queryid, left(query, 20000) AS query
FROM pg_stat_statements(true)
WHERE queryid = ANY (%(keys)s::bigint[])
ORDER BY queryid
