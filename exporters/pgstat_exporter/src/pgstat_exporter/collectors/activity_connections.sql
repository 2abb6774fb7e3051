WITH known (state) AS (
    VALUES ('active'), ('idle'), ('idle in transaction'), ('idle in transaction (aborted)'),
        ('fastpath function call'), ('disabled')
),
sessions AS (
    SELECT datid, state, count(*) AS connections
    FROM pg_stat_activity
    WHERE backend_type = 'client backend'
    GROUP BY datid, state
)
SELECT
    d.datname::text AS datname,
    k.state AS state,
    coalesce(s.connections, 0) AS connections
FROM pg_database AS d
CROSS JOIN known AS k
LEFT JOIN sessions AS s ON s.datid = d.oid AND s.state = k.state
WHERE d.datallowconn
