-- One look at the sessions, and four kinds of rows: by type of process, by kind of wait, by event, and the oldest.
WITH sessions AS MATERIALIZED (
    SELECT
        CASE
            WHEN backend_type IN ('client backend', 'autovacuum worker', 'parallel worker', 'walsender')
                THEN backend_type
            -- From 16 on there is one name for each kind of them.
            WHEN starts_with(backend_type, 'logical replication') AND backend_type <> 'logical replication launcher'
                THEN 'logical replication worker'
            -- Extensions name their workers as they like.
            ELSE 'other'
        END AS backend_type,
        coalesce(state, '') AS state, wait_event_type, wait_event, xact_start, query_start, state_change,
        pid = pg_backend_pid() AS own,
        -- An autovacuum worker shows what it does as its query.
        backend_type = 'autovacuum worker' AND query ~ 'to prevent wraparound' AS against_wraparound
    FROM pg_stat_activity
),
types (backend_type) AS (
    VALUES ('client backend'), ('autovacuum worker'), ('parallel worker'), ('walsender'),
        ('logical replication worker'), ('other')
),
kinds (wait_event_type) AS (
    VALUES ('none'), ('Activity'), ('BufferPin'), ('Client'), ('Extension'), ('InjectionPoint'), ('IO'), ('IPC'),
        ('Lock'), ('LWLock'), ('Timeout')
),
active AS (
    SELECT backend_type, wait_event_type, wait_event
    FROM sessions
    WHERE backend_type IN ('client backend', 'parallel worker') AND state = 'active' AND NOT own
),
events AS (
    SELECT wait_event_type, wait_event, count(*) AS waiting
    FROM active
    WHERE wait_event IS NOT NULL
    GROUP BY wait_event_type, wait_event
    ORDER BY count(*) DESC, wait_event_type, wait_event
    LIMIT 20
),
-- An age below 0 (the clock was set back, or a transaction began after this one) counts as 0.
oldest AS (
    SELECT
        greatest(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 AS transaction_age,
        greatest(extract(epoch FROM max(clock_timestamp() - query_start) FILTER (WHERE state = 'active')), 0)::float8
            AS query_age,
        greatest(
            extract(epoch FROM max(clock_timestamp() - state_change)
                FILTER (WHERE starts_with(state, 'idle in transaction'))),
            0
        )::float8 AS idle_age,
        (SELECT count(*) FROM sessions WHERE against_wraparound) AS against_wraparound
    FROM sessions
    WHERE backend_type = 'client backend' AND NOT own
),
found (backend_type, wait_event_type, wait_event, backends, active, waiting, number) AS (
    SELECT backend_type, NULL, NULL, (SELECT count(*) FROM sessions AS s WHERE s.backend_type = t.backend_type),
        NULL::bigint, NULL::bigint, 0
    FROM types AS t
    UNION ALL
    SELECT NULL, wait_event_type, NULL, NULL, (
            SELECT count(*) FROM active AS a
            WHERE a.backend_type = 'client backend' AND coalesce(a.wait_event_type, 'none') = k.wait_event_type
        ), NULL, 0
    FROM kinds AS k
    UNION ALL
    SELECT NULL, wait_event_type, wait_event, NULL, NULL, waiting, 0 FROM events
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, 1
)
SELECT
    f.backend_type AS backend_type,
    f.wait_event_type AS wait_event_type,
    f.wait_event AS wait_event,
    f.backends AS backends,
    f.active AS active,
    f.waiting AS waiting,
    o.transaction_age AS transaction_age,
    o.query_age AS query_age,
    o.idle_age AS idle_in_transaction_age,
    o.against_wraparound AS against_wraparound
FROM found AS f
LEFT JOIN oldest AS o ON f.number = 1
