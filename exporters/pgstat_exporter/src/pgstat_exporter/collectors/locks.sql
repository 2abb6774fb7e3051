-- One row for all locks, and one for each mode. waitstart may be NULL for a moment after the wait began.
WITH known (mode) AS (
    VALUES ('AccessShareLock'), ('RowShareLock'), ('RowExclusiveLock'), ('ShareUpdateExclusiveLock'), ('ShareLock'),
        ('ShareRowExclusiveLock'), ('ExclusiveLock'), ('AccessExclusiveLock'), ('SIReadLock')
)
SELECT
    mode AS mode,
    -- A prepared transaction has no process.
    CASE WHEN grouping(mode) = 0 THEN count(*) FILTER (WHERE granted AND pid IS DISTINCT FROM pg_backend_pid()) END
        AS granted,
    CASE WHEN grouping(mode) = 1 THEN count(*) FILTER (WHERE NOT granted) END AS waiting,
    CASE WHEN grouping(mode) = 1 THEN greatest(extract(epoch FROM max(clock_timestamp() - waitstart)), 0) END::float8
        AS longest_wait,
    -- What sessions hold by the fast path, and predicate locks, are not in the shared table.
    CASE WHEN grouping(mode) = 1 THEN count(DISTINCT (
        locktype, database, relation, page, tuple, virtualxid, transactionid::text, classid, objid, objsubid
    )) FILTER (WHERE NOT fastpath AND mode <> 'SIReadLock') END AS table_entries,
    CASE WHEN grouping(mode) = 1 THEN current_setting('max_locks_per_transaction')::int
        * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)
    END AS table_capacity
FROM known
LEFT JOIN pg_locks USING (mode)
GROUP BY GROUPING SETS ((), (mode))
