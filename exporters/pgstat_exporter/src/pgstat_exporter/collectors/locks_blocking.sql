-- pg_blocking_pids() stops the lock manager for a moment: it is asked for waiting sessions only, and for 100 of them.
WITH RECURSIVE longest AS MATERIALIZED (
    SELECT pid FROM pg_locks WHERE NOT granted GROUP BY pid ORDER BY min(waitstart) LIMIT 100
),
waiters AS MATERIALIZED (
    SELECT pid, pg_blocking_pids(pid) AS blockers FROM longest
),
roots AS MATERIALIZED (
    SELECT b.root, count(DISTINCT w.pid) AS direct
    FROM waiters AS w
    CROSS JOIN LATERAL unnest(w.blockers) AS b (root)
    WHERE b.root NOT IN (SELECT pid FROM waiters)
    GROUP BY b.root
),
-- The limit keeps the planner from making room for a million of them.
blocked (root, pid) AS (
    (SELECT root, root FROM roots ORDER BY direct DESC LIMIT 10)
    UNION
    SELECT b.root, w.pid FROM blocked AS b JOIN waiters AS w ON b.pid = ANY (w.blockers)
),
worst AS (
    SELECT root, count(*) - 1 AS sessions FROM blocked GROUP BY root ORDER BY count(*) DESC, root LIMIT 1
)
SELECT
    (SELECT count(*) FROM waiters WHERE cardinality(blockers) > 0) AS blocked_sessions,
    (SELECT count(*) FROM roots) AS roots,
    w.sessions AS worst_root_sessions,
    extract(epoch FROM a.xact_start)::float8 AS worst_root_transaction_start,
    coalesce(a.datname, '')::text AS datname,
    coalesce(a.application_name, '') AS application_name,
    -- The server calls the holder of a prepared transaction process 0.
    CASE WHEN w.root = 0 THEN 'prepared transaction' ELSE coalesce(a.state, '') END AS state,
    coalesce(a.wait_event_type, '') AS wait_event_type,
    coalesce(a.query_id::text, '') AS queryid
FROM (VALUES (1)) AS one
LEFT JOIN worst AS w ON true
LEFT JOIN pg_stat_activity AS a ON a.pid = w.root
