"""Every panel query of every dashboard, asked as a viewer's Grafana asks it."""

import dashboards
from proof.grafana import Grafana
from proof.prometheus import Prometheus

PLAN_METRICS = {
    "erp_db_query_count_total": "sum(erp_db_query_count_total)",
    "erp_db_query_duration_seconds": "sum(erp_db_query_duration_seconds_count)",
    "erp_db_active_connections": "max_over_time(sum(erp_db_active_connections)[10m:1s])",
}


def empty_panels(prometheus: Prometheus) -> list[str]:
    """Return the panel queries for which Prometheus has no sample."""
    return [
        f"{title}: {expression}"
        for _, title, expression in dashboards.queries()
        if not prometheus.query(dashboards.substitute(expression))
    ]


def empty_panels_of_viewer(grafana: Grafana) -> list[str]:
    """Return the panel queries that come back empty through Grafana."""
    return [
        f"{title}: {expression}"
        for _, title, expression in dashboards.queries()
        if not grafana.samples(dashboards.substitute(expression))
    ]


def idle_metrics(prometheus: Prometheus) -> list[str]:
    """Return those of the plan's metrics that were zero all the time."""
    return [name for name, expression in PLAN_METRICS.items() if not prometheus.value(expression) > 0]
