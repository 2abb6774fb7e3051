-- Replicas that share a name and have no slot are one series with the worst of each figure.
WITH position (lsn) AS (
    SELECT CASE
        WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
        ELSE pg_current_wal_lsn()
    END
),
replicas AS (
    SELECT
        r.*,
        p.lsn,
        coalesce(s.slot_name, '') AS slot_name
    FROM pg_stat_replication AS r
    CROSS JOIN position AS p
    LEFT JOIN pg_replication_slots AS s ON s.active_pid = r.pid AND NOT s.temporary
)
SELECT
    application_name AS application_name,
    slot_name::text AS slot_name,
    count(*) AS replicas,
    count(*) FILTER (WHERE state = 'streaming') AS streaming,
    count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) AS synchronous,
    max(greatest(lsn, sent_lsn) - sent_lsn)::float8 AS sent_lag,
    max(greatest(lsn, write_lsn) - write_lsn)::float8 AS write_lag,
    max(greatest(lsn, flush_lsn) - flush_lsn)::float8 AS flush_lag,
    max(greatest(lsn, replay_lsn) - replay_lsn)::float8 AS replay_lag,
    -- The server forgets the time when nothing happens; a replica that has everything is 0 behind.
    extract(epoch FROM max(coalesce(write_lag, CASE WHEN write_lsn >= lsn THEN interval '0' END)))::float8
        AS write_lag_seconds,
    extract(epoch FROM max(coalesce(flush_lag, CASE WHEN flush_lsn >= lsn THEN interval '0' END)))::float8
        AS flush_lag_seconds,
    extract(epoch FROM max(coalesce(replay_lag, CASE WHEN replay_lsn >= lsn THEN interval '0' END)))::float8
        AS replay_lag_seconds,
    extract(epoch FROM min(reply_time))::float8 AS reply_time
FROM replicas
GROUP BY application_name, slot_name
