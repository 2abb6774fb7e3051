-- pg_sequence_last_value locks the sequence until the transaction ends: sequences with a lock that it would wait for are
-- left for the next time, and so many are read that the server's table of locks keeps most of its room. Those with the
-- fewest numbers come first, for only they run out.
WITH locked AS MATERIALIZED (
    SELECT relation
    FROM pg_locks
    WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
),
columns AS MATERIALIZED (
    -- The columns that a sequence fills: it is owned by them, or in their default.
    SELECT objid AS seqrelid, refobjid AS relid, refobjsubid AS attnum
    FROM pg_depend
    WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
        AND refobjsubid > 0
    UNION
    SELECT d.refobjid, f.adrelid, f.adnum
    FROM pg_depend AS d
    JOIN pg_attrdef AS f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
    WHERE d.refclassid = 'pg_class'::regclass
),
known AS (
    SELECT
        q.seqrelid,
        n.nspname,
        c.relname,
        q.seqincrement AS step,
        q.seqstart AS start,
        -- Above the highest, where the column holds none of its numbers.
        greatest(q.seqmin, max(w.low)) AS low,
        least(q.seqmax, min(w.high)) AS high
    FROM pg_sequence AS q
    JOIN pg_class AS c ON c.oid = q.seqrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN columns AS o ON o.seqrelid = q.seqrelid
    LEFT JOIN pg_attribute AS a ON a.attrelid = o.relid AND a.attnum = o.attnum
    LEFT JOIN (VALUES
        ('int2'::regtype, -32768::int8, 32767::int8), ('int4'::regtype, -2147483648, 2147483647)
    ) AS w (type, low, high) ON w.type = a.atttypid
    WHERE NOT q.seqcycle
        AND (c.relpersistence = 'p' OR c.relpersistence = 'u' AND NOT pg_is_in_recovery())
        AND q.seqrelid NOT IN (SELECT relation FROM locked)
    GROUP BY q.seqrelid, n.nspname, c.relname, q.seqincrement, q.seqstart, q.seqmin, q.seqmax
),
chosen AS MATERIALIZED (
    SELECT *
    FROM known
    ORDER BY high::numeric - low, seqrelid
    LIMIT current_setting('max_locks_per_transaction')::int * current_setting('max_connections')::int / 8
),
-- What was used of the numbers that there are, counted from the end at which it starts by default; all of them, where
-- the next one is none of them.
used AS MATERIALIZED (
    SELECT
        nspname,
        relname,
        CASE
            WHEN coalesce(last + step, start) NOT BETWEEN low AND high THEN 1
            ELSE greatest((CASE WHEN step > 0 THEN last - low ELSE high - last END + 1) / (high::numeric - low + 1), 0)
        END::float8 AS ratio
    FROM (SELECT *, pg_sequence_last_value(seqrelid)::numeric AS last FROM chosen) AS c
)
SELECT
    u.nspname::text AS schemaname,
    u.relname::text AS relname,
    CASE WHEN grouping(u.relname) = 0 THEN max(u.ratio) END AS ratio,
    CASE WHEN grouping(u.relname) = 1 THEN coalesce(max(u.ratio), 0) END AS highest,
    CASE WHEN grouping(u.relname) = 1 THEN count(*) END AS sequences
FROM used AS u
GROUP BY GROUPING SETS ((), (u.nspname, u.relname))
HAVING grouping(u.relname) = 1 OR max(u.ratio) >= 0.5
ORDER BY grouping(u.relname) DESC, max(u.ratio) DESC, u.nspname, u.relname
