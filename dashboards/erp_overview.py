"""The dashboard "ERP overview": is the ERP well, and if not, why. Alerts link to its panels by their ids."""

from typing import Any

from grafanalib.core import Annotations, Dashboard, Template, Templating, Time

from dashboards import erp_tiles, panels
from dashboards.canonical import SCHEMA_VERSION
from dashboards.panels import Panel, Place, Query

UID = "erp-overview"

_QUERIES = 'query_name=~"$query_name"'
_ENDPOINTS = 'endpoint=~"$endpoint"'
_HOSTS = 'host=~"$host"'


def build() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        title="ERP overview",
        uid=UID,
        description="Is the ERP well, and if not, why: status, query times, load, machines, connections.",
        tags=["messwarte"],
        schemaVersion=SCHEMA_VERSION,
        editable=False,
        graphTooltip=1,
        refresh="30s",
        time=Time("now-1h", "now"),
        timezone="browser",
        links=[panels.dashboard_link("PostgreSQL", "postgresql")],
        annotations=Annotations(list=_annotations()),
        templating=Templating(list=_variables()),
        panels=[*erp_tiles.tiles(), _query_times(), _slowest(), _endpoints(), _machines(), _connections()],
    )


def _annotations() -> list[dict[str, Any]]:
    own = {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    return [
        own,
        panels.marks("Firing alerts", f"max by (alertname) ({erp_tiles.FIRING})", "{{alertname}} fires", "orange"),
        panels.marks("Targets down", f"max by (job, host) ({erp_tiles.DOWN}) + 1", "{{job}} {{host}} is down", "red"),
    ]


def _variables() -> list[Template]:
    return [
        panels.data_source_variable(),
        panels.variable("host", "Host", "node_uname_info"),
        panels.variable("query_name", "Query", "erp_db_query_duration_seconds_count"),
        panels.variable("endpoint", "Endpoint", "erp_endpoint_db_queries_total"),
    ]


def _query_times() -> Panel:
    return panels.heatmap(
        Place(
            7,
            "Query times",
            "How many database queries per minute took how long: the scale below tells what the colours mean."
            " Everything above the line of 1 s is slow.",
            x=0,
            y=3,
            w=12,
            h=12,
        ),
        Query(
            f"sum by (le) (rate(erp_db_query_duration_seconds_bucket{{{_QUERIES}}}[$__rate_interval])) * 60",
            "{{le}}",
            format="heatmap",
            step="30s",
        ),
        unit="s",
        cell_unit="suffix:queries/min",
        no_value="no queries",
    )


def _slowest() -> Panel:
    bucket, total, count = (f"erp_db_query_duration_seconds_{part}" for part in ("bucket", "sum", "count"))

    def each(metric: str) -> str:
        return f"sum by (query_name) (increase({metric}{{{_QUERIES}}}[$__range]))"

    quantile = f"histogram_quantile(0.95, sum by (le, query_name) (rate({bucket}{{{_QUERIES}}}[$__range]))) > 0"
    slow = panels.increase("query_name, instance", f"erp:db_slow_queries:total{{{_QUERIES}}}", "$__range:$__interval")
    columns = {
        "95 %": quantile,
        "Over 1 s": f"round(sum by (query_name) ({slow}))",
        "Calls": f"round({each('erp_db_query_count_total')})",
        "Mean": f"{each(total)} / ({each(count)} > 0)",
        "Total": each(total),
    }
    values = [f"Value #{letter}" for letter in "ABCDE"]
    coloured = {"type": "color-background", "mode": "basic"}
    slow_seconds = panels.thresholds(((0, "transparent"), (panels.SLOW_SECONDS, "red")))
    return panels.table(
        Place(
            8,
            "Ten slowest queries",
            "By the time under which 95 of 100 of its calls stay, within the time range. Red from 1 s; Total is the"
            " time spent on all calls. A query's name leads to its query times.",
            x=12,
            y=3,
            w=12,
            h=12,
        ),
        [Query(expr, instant=True, format="table") for expr in columns.values()],
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "sortBy", "options": {"sort": [{"desc": True, "field": "Value #A"}]}},
            {"id": "limit", "options": {"limitField": 10}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {"query_name": 0} | {value: i + 1 for i, value in enumerate(values)},
                    "renameByName": {"query_name": "Query"} | dict(zip(values, columns, strict=True)),
                },
            },
        ],
        overrides=[
            panels.column("Query", custom__minWidth=165, links=[_query_times_link()]),
            panels.column("95 %", unit="s", custom__width=80, thresholds=slow_seconds, custom__cellOptions=coloured),
            panels.column("Mean", unit="s", custom__width=80, thresholds=slow_seconds, custom__cellOptions=coloured),
            panels.column("Calls", unit="locale", decimals=0, custom__width=75),
            panels.column(
                "Over 1 s",
                unit="locale",
                decimals=0,
                custom__width=85,
                thresholds=panels.thresholds(((0, "transparent"), (1, "orange"))),
                custom__cellOptions=coloured,
            ),
            panels.column("Total", unit="s", custom__width=75),
        ],
        no_value="no queries",
    )


def _query_times_link() -> dict[str, Any]:
    keep = "${datasource:queryparam}&${host:queryparam}&${endpoint:queryparam}&${__url_time_range}"
    return {
        "title": "Query times of ${__value.text}",
        "url": f"/d/{UID}?viewPanel=panel-7&var-query_name=${{__value.text:percentencode}}&{keep}",
    }


def _endpoints() -> Panel:
    metric = f"erp_endpoint_db_queries_total{{{_ENDPOINTS}}}"
    return panels.timeseries(
        Place(
            9,
            "Queries per minute, by endpoint",
            "How many database queries each endpoint of the ERP sends. Dashed: the limits above which an alert fires;"
            ' "limit" is that of every endpoint without one of its own.',
            x=0,
            y=15,
            w=12,
            h=9,
        ),
        [
            Query(
                # Without the endpoints that have never sent a query, such as that of the API's documentation.
                f"sum by (endpoint) (rate({metric}[$__rate_interval])) * 60"
                f" and on (endpoint) sum by (endpoint) ({metric}) > 0",
                "{{endpoint}}",
            ),
            Query("max(erp:endpoint_db_queries_default_limit:per_minute)", "limit"),
            Query(
                f"max by (endpoint) (erp:endpoint_db_queries_limit:per_minute{{{_ENDPOINTS}}})",
                "limit of {{endpoint}}",
            ),
        ],
        unit="suffix:/min",
        decimals=0,
        no_value="no queries",
        many=True,
        overrides=[panels.dashed("^limit", "orange"), panels.dashed("^limit of", legend=False)],
    )


def _machines() -> Panel:
    available, total = (f"node_memory_{part}_bytes{{{_HOSTS}}}" for part in ("MemAvailable", "MemTotal"))
    return panels.timeseries(
        Place(
            10,
            "CPU and memory",
            "Share of each host's processors that is busy, and (dashed) of its memory that is in use.",
            x=12,
            y=15,
            w=6,
            h=9,
        ),
        [
            Query(
                f'1 - avg by (host) (rate(node_cpu_seconds_total{{mode="idle", {_HOSTS}}}[$__rate_interval]))',
                "CPU {{host}}",
            ),
            Query(f"1 - sum by (host) ({available}) / sum by (host) ({total})", "memory {{host}}"),
        ],
        unit="percentunit",
        maximum=1,
        no_value="no node exporter",
        overrides=[panels.dashed("^memory")],
    )


def _connections() -> Panel:
    return panels.timeseries(
        Place(
            11,
            "Active connections",
            "Pool connections that the ERP has checked out, at the moment of measuring and on average, and PostgreSQL's"
            " sessions: used, used by a transaction that does nothing and holds its locks, and (dashed) how many there"
            " can be.",
            x=18,
            y=15,
            w=6,
            h=9,
        ),
        [
            Query("sum(erp_db_active_connections)", "ERP pool, at this moment"),
            Query("sum(rate(erp_db_connection_seconds_total[$__rate_interval]))", "ERP pool, on average"),
            Query("sum by (host) (pg_stat_activity_connections)", "sessions on {{host}}"),
            Query(
                'sum by (host) (pg_stat_activity_connections{state=~"idle in transaction.*"})',
                "idle in transaction on {{host}}",
            ),
            Query("max by (host) (pg_settings_max_connections)", "limit of {{host}}"),
        ],
        unit="short",
        no_value="no connections",
        overrides=[panels.dashed("^limit", "orange")],
    )
