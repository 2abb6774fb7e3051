-- Version 17 gave them other names; here the new ones are used everywhere.
WITH renamed (name, slru) AS (
    VALUES ('CommitTs', 'commit_timestamp'), ('MultiXactMember', 'multixact_member'),
        ('MultiXactOffset', 'multixact_offset'), ('Notify', 'notify'), ('Serial', 'serializable'),
        ('Subtrans', 'subtransaction'), ('Xact', 'transaction')
)
SELECT
    coalesce(r.slru, s.name) AS slru,
    s.blks_zeroed AS blocks_zeroed,
    s.blks_hit AS blocks_hit,
    s.blks_read AS blocks_read,
    s.blks_written AS blocks_written,
    s.flushes AS flushes,
    s.truncates AS truncates
FROM pg_stat_slru AS s
LEFT JOIN renamed AS r ON r.name = s.name
