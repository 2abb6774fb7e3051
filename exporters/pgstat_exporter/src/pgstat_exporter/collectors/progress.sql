-- One row per command that counts, and one per relation for what takes more than five seconds: autovacuum visits
-- thousands of tables a day, and each would be a series of its own. Relations have names in their
-- own database only, elsewhere numbers. The limit keeps the planner from making room for thousands of commands.
WITH block (size) AS (
    SELECT current_setting('block_size')::bigint
),
commands (command, pid, relid, phase, done, total, rows, lockers) AS (
    SELECT
        'vacuum', pid, relid, phase, size * heap_blks_scanned, size * heap_blks_total, NULL::bigint,
        NULL::bigint
    FROM pg_stat_progress_vacuum CROSS JOIN block
    UNION ALL
    SELECT 'analyze', pid, relid, phase, size * sample_blks_scanned, size * sample_blks_total, NULL, NULL
    FROM pg_stat_progress_analyze CROSS JOIN block
    UNION ALL
    SELECT
        'create index', pid, relid, phase, size * blocks_done, size * nullif(blocks_total, 0), tuples_done,
        lockers_total - lockers_done
    FROM pg_stat_progress_create_index CROSS JOIN block
    UNION ALL
    SELECT
        'cluster', pid, relid, phase, size * heap_blks_scanned, size * nullif(heap_blks_total, 0),
        heap_tuples_written, NULL
    FROM pg_stat_progress_cluster CROSS JOIN block
    UNION ALL
    SELECT
        'copy', pid, relid, lower(command), bytes_processed, nullif(bytes_total, 0), tuples_processed, NULL
    FROM pg_stat_progress_copy
    UNION ALL
    SELECT 'base backup', pid, 0::oid, phase, backup_streamed, backup_total, NULL, NULL
    FROM pg_stat_progress_basebackup
    LIMIT 50
),
known (command) AS (
    VALUES ('vacuum'), ('analyze'), ('create index'), ('cluster'), ('copy'), ('base backup')
),
running AS (
    SELECT
        c.command,
        coalesce(a.datname, '')::text AS datname,
        CASE
            WHEN c.relid = 0 THEN ''
            WHEN a.datname = current_database() THEN c.relid::regclass::text
            ELSE c.relid::text
        END AS relation,
        c.phase, c.done, c.total, c.rows, c.lockers, a.query_start
    FROM commands AS c
    JOIN pg_stat_activity AS a USING (pid)
    -- The exporter's own sessions read by COPY.
    WHERE c.command <> 'copy' OR a.application_name <> current_setting('application_name')
)
SELECT
    command AS command,
    datname AS datname,
    relation AS relation,
    phase AS phase,
    CASE WHEN grouping(phase) = 1 THEN count(query_start) END AS running,
    CASE WHEN grouping(phase) = 1 THEN extract(epoch FROM min(query_start)) END::float8 AS started,
    CASE WHEN grouping(phase) = 0 THEN sum(done) END AS done,
    CASE WHEN grouping(phase) = 0 THEN sum(total) END AS total,
    CASE WHEN grouping(phase) = 0 THEN sum(rows) END AS rows,
    CASE WHEN grouping(phase) = 0 THEN sum(lockers) END AS lockers
FROM known
LEFT JOIN running USING (command)
GROUP BY GROUPING SETS ((command), (command, datname, relation, phase))
HAVING grouping(phase) = 1 OR min(query_start) < clock_timestamp() - interval '5 seconds'
