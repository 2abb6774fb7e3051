-- Reads the file system only: it takes no lock on a table.
SELECT datname::text AS datname, pg_database_size(oid) AS size_bytes
FROM pg_database
WHERE datallowconn
