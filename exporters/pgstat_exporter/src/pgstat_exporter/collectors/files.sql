WITH wal AS (
    SELECT count(*) AS files, coalesce(sum(size), 0) AS bytes FROM pg_ls_waldir()
),
temporary AS (
    SELECT count(*) AS files, coalesce(sum(f.size), 0) AS bytes
    FROM pg_tablespace AS t
    CROSS JOIN LATERAL pg_ls_tmpdir(t.oid) AS f
    WHERE t.spcname <> 'pg_global'
)
SELECT
    wal.files AS wal_files,
    wal.bytes AS wal_bytes,
    temporary.files AS temporary_files,
    temporary.bytes AS temporary_bytes
FROM wal
CROSS JOIN temporary
