SELECT count(*) AS autovacuum_off
FROM pg_class AS c
CROSS JOIN pg_options_to_table(c.reloptions) AS o
WHERE c.relkind IN ('r', 'm') AND o.option_name = 'autovacuum_enabled' AND NOT o.option_value::bool
