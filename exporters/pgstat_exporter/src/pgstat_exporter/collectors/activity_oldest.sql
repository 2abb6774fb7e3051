-- An age below 0 (the clock was set back, or a transaction began after this one) counts as 0.
SELECT
    greatest(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 AS transaction_age,
    greatest(extract(epoch FROM max(clock_timestamp() - query_start) FILTER (WHERE state = 'active')), 0)::float8
        AS query_age,
    greatest(
        extract(epoch FROM max(clock_timestamp() - state_change) FILTER (WHERE starts_with(state, 'idle in transaction'))), 0
    )::float8 AS idle_in_transaction_age
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
