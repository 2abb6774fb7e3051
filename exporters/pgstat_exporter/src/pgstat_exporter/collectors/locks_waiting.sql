-- waitstart may be NULL for a moment after the wait began.
SELECT
    count(*) AS waiting,
    greatest(extract(epoch FROM max(clock_timestamp() - waitstart)), 0)::float8 AS longest_wait
FROM pg_locks
WHERE NOT granted
