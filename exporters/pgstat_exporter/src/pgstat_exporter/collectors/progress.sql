-- One row per command that counts, and one per relation for what takes more than five seconds: autovacuum visits
-- thousands of tables a day, and each would be a series of its own. Relations have names in their
-- own database only, elsewhere numbers. The limit keeps the planner from making room for thousands of commands.
WITH block (size) AS (
    SELECT current_setting('block_size')::bigint
),
commands (command, pid, datid, relid, phase, done, total, rows, lockers) AS (
    SELECT
        'vacuum', pid, datid, relid, phase, size * heap_blks_scanned, size * heap_blks_total, NULL::bigint,
        NULL::bigint
    FROM pg_stat_progress_vacuum CROSS JOIN block
    UNION ALL
    SELECT 'analyze', pid, datid, relid, phase, size * sample_blks_scanned, size * sample_blks_total, NULL, NULL
    FROM pg_stat_progress_analyze CROSS JOIN block
    UNION ALL
    SELECT
        'create index', pid, datid, relid, phase, size * blocks_done, size * nullif(blocks_total, 0), tuples_done,
        lockers_total - lockers_done
    FROM pg_stat_progress_create_index CROSS JOIN block
    UNION ALL
    SELECT
        'cluster', pid, datid, relid, phase, size * heap_blks_scanned, size * nullif(heap_blks_total, 0),
        heap_tuples_written, NULL
    FROM pg_stat_progress_cluster CROSS JOIN block
    UNION ALL
    SELECT
        'copy', pid, datid, relid, lower(command), bytes_processed, nullif(bytes_total, 0), tuples_processed, NULL
    FROM pg_stat_progress_copy
    -- The exporter's own sessions read by COPY.
    WHERE pid NOT IN (SELECT a.pid FROM pg_stat_activity AS a WHERE application_name = current_setting('application_name'))
    UNION ALL
    SELECT 'base backup', pid, 0::oid, 0::oid, phase, backup_streamed, backup_total, NULL, NULL
    FROM pg_stat_progress_basebackup
    LIMIT 50
),
known (command) AS (
    VALUES ('vacuum'), ('analyze'), ('create index'), ('cluster'), ('copy'), ('base backup')
),
running AS (
    SELECT
        k.command,
        coalesce(d.datname, '')::text AS datname,
        CASE WHEN c.relid = 0 THEN '' ELSE coalesce(n.nspname || '.' || r.relname, c.relid::text) END AS relation,
        coalesce(c.phase, '') AS phase,
        c.pid, c.done, c.total, c.rows, c.lockers, a.query_start
    FROM known AS k
    LEFT JOIN commands AS c USING (command)
    LEFT JOIN pg_stat_activity AS a ON a.pid = c.pid
    LEFT JOIN pg_database AS d ON d.oid = c.datid
    LEFT JOIN pg_class AS r ON r.oid = c.relid AND d.datname = current_database()
    LEFT JOIN pg_namespace AS n ON n.oid = r.relnamespace
)
SELECT
    command AS command,
    datname AS datname,
    relation AS relation,
    phase AS phase,
    CASE WHEN grouping(phase) = 1 THEN count(pid) END AS running,
    CASE WHEN grouping(phase) = 1 THEN extract(epoch FROM min(query_start)) END::float8 AS started,
    CASE WHEN grouping(phase) = 0 THEN sum(done) END AS done,
    CASE WHEN grouping(phase) = 0 THEN sum(total) END AS total,
    CASE WHEN grouping(phase) = 0 THEN sum(rows) END AS rows,
    CASE WHEN grouping(phase) = 0 THEN sum(lockers) END AS lockers
FROM running
GROUP BY GROUPING SETS ((command), (command, datname, relation, phase))
HAVING grouping(phase) = 1 OR min(query_start) < clock_timestamp() - interval '5 seconds'
