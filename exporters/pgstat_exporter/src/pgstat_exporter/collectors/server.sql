SELECT
    split_part(current_setting('server_version'), ' ', 1) AS version,
    extract(epoch FROM pg_postmaster_start_time())::float8 AS start_time,
    extract(epoch FROM pg_conf_load_time())::float8 AS configuration_load_time,
    pg_is_in_recovery()::int AS in_recovery,
    current_setting('max_connections')::int AS max_connections,
    current_setting('superuser_reserved_connections')::int AS superuser_reserved_connections,
    current_setting('reserved_connections', true)::int AS reserved_connections
