SELECT wait_event_type AS wait_event_type, wait_event AS wait_event, count(*) AS backends
FROM pg_stat_activity
WHERE backend_type IN ('client backend', 'parallel worker') AND state = 'active' AND wait_event IS NOT NULL
GROUP BY wait_event_type, wait_event
ORDER BY count(*) DESC, wait_event_type, wait_event
LIMIT 20
