WITH wal AS (
    SELECT count(*) AS files, coalesce(sum(size), 0) AS bytes FROM pg_ls_waldir()
),
temporary AS (
    SELECT count(*) AS files, coalesce(sum(f.size), 0) AS bytes
    FROM pg_tablespace AS t
    CROSS JOIN LATERAL pg_ls_tmpdir(t.oid) AS f
    WHERE t.spcname <> 'pg_global'
)
SELECT w.files AS wal_files, w.bytes AS wal_bytes, t.files AS temporary_files, t.bytes AS temporary_bytes
FROM wal AS w
CROSS JOIN temporary AS t
