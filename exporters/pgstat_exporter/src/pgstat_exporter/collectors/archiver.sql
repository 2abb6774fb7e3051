WITH waiting AS (
    SELECT
        count(*) AS files,
        greatest(extract(epoch FROM clock_timestamp() - min(modification)), 0) AS longest_wait
    FROM pg_ls_archive_statusdir()
    WHERE right(name, 6) = '.ready'
)
SELECT
    a.archived_count AS archived,
    a.failed_count AS failed,
    extract(epoch FROM a.last_archived_time)::float8 AS last_archived,
    extract(epoch FROM a.last_failed_time)::float8 AS last_failed,
    extract(epoch FROM a.stats_reset)::float8 AS stats_reset,
    w.files AS waiting,
    coalesce(w.longest_wait, 0)::float8 AS longest_wait
FROM pg_stat_archiver AS a
CROSS JOIN waiting AS w
WHERE current_setting('archive_mode') <> 'off'
