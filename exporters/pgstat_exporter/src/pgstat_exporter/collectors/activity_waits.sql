WITH known (wait_event_type) AS (
    VALUES ('none'), ('Activity'), ('BufferPin'), ('Client'), ('Extension'), ('InjectionPoint'), ('IO'), ('IPC'),
        ('Lock'), ('LWLock'), ('Timeout')
),
active AS (
    SELECT coalesce(wait_event_type, 'none') AS wait_event_type, count(*) AS backends
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()
    GROUP BY 1
)
SELECT k.wait_event_type AS wait_event_type, coalesce(a.backends, 0) AS backends
FROM known AS k
LEFT JOIN active AS a USING (wait_event_type)
