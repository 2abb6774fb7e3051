-- template0 counts too: the server's oldest database is what brings it to a stop, 3,000,000 before 2^31 - 1.
SELECT
    datname::text AS datname,
    age(datfrozenxid) AS xids,
    mxid_age(datminmxid) AS multixacts,
    greatest(
        age(datfrozenxid) / current_setting('autovacuum_freeze_max_age')::float8,
        mxid_age(datminmxid) / current_setting('autovacuum_multixact_freeze_max_age')::float8
    ) AS freeze_ratio,
    greatest(age(datfrozenxid), mxid_age(datminmxid)) / (2147483647 - 3000000)::float8 AS wraparound_ratio
FROM pg_database
