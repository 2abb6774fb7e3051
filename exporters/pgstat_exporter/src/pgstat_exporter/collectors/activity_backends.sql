-- Extensions name their workers as they like, so that all unknown types count as one.
WITH known (backend_type) AS (
    VALUES ('client backend'), ('autovacuum worker'), ('parallel worker'), ('walsender'),
        ('logical replication worker'), ('other')
),
processes AS (
    SELECT
        CASE
            WHEN backend_type IN (TABLE known) THEN backend_type
            -- From 16 on there is one name for each kind of them.
            WHEN starts_with(backend_type, 'logical replication') AND backend_type <> 'logical replication launcher'
                THEN 'logical replication worker'
            ELSE 'other'
        END AS backend_type,
        -- An autovacuum worker shows what it does as its query.
        query ~ 'to prevent wraparound' AND backend_type = 'autovacuum worker' AS against_wraparound
    FROM pg_stat_activity
)
SELECT
    k.backend_type AS backend_type,
    count(p.backend_type) AS backends,
    CASE WHEN k.backend_type = 'autovacuum worker' THEN count(*) FILTER (WHERE p.against_wraparound) END
        AS against_wraparound
FROM known AS k
LEFT JOIN processes AS p USING (backend_type)
GROUP BY k.backend_type
