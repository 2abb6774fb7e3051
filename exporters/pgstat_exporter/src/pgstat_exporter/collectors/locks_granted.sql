WITH known (mode) AS (
    VALUES ('AccessShareLock'), ('RowShareLock'), ('RowExclusiveLock'), ('ShareUpdateExclusiveLock'), ('ShareLock'),
        ('ShareRowExclusiveLock'), ('ExclusiveLock'), ('AccessExclusiveLock'), ('SIReadLock')
),
held AS (
    SELECT mode, count(*) AS granted FROM pg_locks WHERE granted AND pid <> pg_backend_pid() GROUP BY mode
)
SELECT k.mode AS mode, coalesce(h.granted, 0) AS granted
FROM known AS k
LEFT JOIN held AS h USING (mode)
