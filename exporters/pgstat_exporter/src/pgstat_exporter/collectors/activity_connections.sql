-- A session that was not idle yet has no state; from version 18 on there are also those that have no database, for
-- they are not authenticated.
WITH known (state) AS (
    VALUES ('active'), ('idle'), ('idle in transaction'), ('idle in transaction (aborted)'),
        ('fastpath function call'), ('disabled'), ('starting')
),
sessions AS (
    SELECT coalesce(datname, '') AS datname, coalesce(state, 'starting') AS state, count(*) AS connections
    FROM pg_stat_activity
    WHERE backend_type = 'client backend'
    GROUP BY 1, 2
),
series AS (
    SELECT d.datname, k.state FROM pg_database AS d CROSS JOIN known AS k WHERE d.datallowconn
    UNION
    SELECT '', 'starting' WHERE current_setting('server_version_num')::int >= 180000
    UNION
    SELECT datname, state FROM sessions
)
SELECT
    r.datname::text AS datname,
    r.state AS state,
    coalesce(s.connections, 0) AS connections
FROM series AS r
LEFT JOIN sessions AS s ON s.datname = r.datname AND s.state = r.state
