-- waitstart may be NULL for a moment after the wait began.
SELECT
    count(*) FILTER (WHERE NOT granted) AS waiting,
    greatest(extract(epoch FROM max(clock_timestamp() - waitstart)), 0)::float8 AS longest_wait,
    -- What sessions hold by the fast path, and predicate locks, are not in the shared table.
    count(DISTINCT (
        locktype, database, relation, page, tuple, virtualxid, transactionid::text, classid, objid, objsubid
    )) FILTER (WHERE NOT fastpath AND mode <> 'SIReadLock') AS table_entries,
    current_setting('max_locks_per_transaction')::int
        * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)
        AS table_capacity
FROM pg_locks
