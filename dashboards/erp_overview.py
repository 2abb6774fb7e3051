"""The dashboard "ERP overview": is the ERP well, and if not, why. Alerts link to its panels by their ids."""

from typing import Any

from grafanalib.core import Annotations, Dashboard, Template, Templating, Time

from dashboards import panels
from dashboards.canonical import SCHEMA_VERSION
from dashboards.panels import SLOW, Panel, Place, Query

UID = "erp-overview"

_QUERIES = 'query_name=~"$query_name"'
_ENDPOINTS = 'endpoint=~"$endpoint"'
_HOSTS = 'host=~"$host"'
_GOOD_TO_BAD = ((0, "green"), (1, "orange"))


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
        annotations=Annotations(list=[_own_annotations()]),
        templating=Templating(list=_variables()),
        panels=[*_tiles(), _query_times(), _slowest(), _endpoints(), _machines(), _connections()],
    )


def _own_annotations() -> dict[str, Any]:
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }


def _variables() -> list[Template]:
    source = Template(
        name="datasource",
        label="Data source",
        type="datasource",
        query="prometheus",
        default="prometheus",
        regex="",
    )
    source.current = {"selected": False, "text": "Prometheus", "value": "prometheus"}
    return [
        source,
        _labels("host", "Host", "node_uname_info"),
        _labels("query_name", "Query", "erp_db_query_duration_seconds_count"),
        _labels("endpoint", "Endpoint", "erp_endpoint_db_queries_total"),
    ]


def _labels(name: str, label: str, metric: str) -> Template:
    variable = Template(
        name=name,
        label=label,
        type="query",
        query=f"label_values({metric}, {name})",
        dataSource=panels.DATA_SOURCE,
        includeAll=True,
        allValue=".*",
        multi=True,
        refresh=2,
        regex="",
        sort=1,
        default="$__all",
    )
    variable.current = {"selected": False, "text": ["All"], "value": ["$__all"]}
    return variable


def _tile(number: int, title: str, description: str) -> Place:
    return Place(number, title, description, x=4 * (number - 1), y=0, w=4, h=4)


def _tiles() -> list[Panel]:
    up = {"options": {"0": {"index": 1, "text": "Down"}, "1": {"index": 0, "text": "Up"}}, "type": "value"}
    return [
        panels.stat(
            _tile(1, "ERP and database", "Up when the ERP and PostgreSQL both answer; Down when one does not."),
            Query('min(up{job="erp"}) * min(pg_up)', instant=True),
            unit="none",
            steps=((0, "red"), (1, "green")),
            no_value="not measured",
            mappings=[up],
        ),
        panels.stat(
            _tile(2, "Targets down", "What Prometheus cannot reach: job and host. None means that all are up."),
            Query(
                'count by (job, host) (up == 0) or on () label_replace(vector(0), "job", "none", "", "")',
                "{{job}} {{host}}",
                instant=True,
            ),
            unit="none",
            steps=((0, "green"), (1, "red")),
            no_value="not measured",
            named=True,
        ),
        panels.stat(
            _tile(3, "Firing alerts", "Which alerts fire now, and how many of each."),
            Query(
                'count by (alertname) (ALERTS{alertstate="firing", severity!="none"})'
                ' or on () label_replace(vector(0), "alertname", "none", "", "")',
                "{{alertname}}",
                instant=True,
            ),
            unit="none",
            steps=_GOOD_TO_BAD,
            no_value="not measured",
            named=True,
        ),
        panels.stat(
            _tile(
                4,
                "Slow queries, last hour",
                "Database queries that took longer than 1 s in the last 60 minutes.",
            ),
            Query(
                "round(sum(increase(erp:db_slow_queries:total[1h])))",
                instant=True,
            ),
            unit="none",
            steps=_GOOD_TO_BAD,
            no_value="not measured",
            decimals=0,
        ),
        panels.stat(
            _tile(5, "Query time, 95 %", "95 of 100 database queries were faster than this. Red from 1 s."),
            Query(
                "histogram_quantile(0.95, sum by (le)"
                " (rate(erp_db_query_duration_seconds_bucket[$__rate_interval]))) >= 0"
            ),
            unit="s",
            steps=SLOW,
            no_value="no queries",
            decimals=2,
        ),
        panels.stat(
            _tile(6, "HTTP errors", "Share of the ERP's answers with status 500 or above."),
            Query(
                '(sum(rate(erp_http_requests_total{status=~"5.."}[$__rate_interval])) or vector(0))'
                " / (sum(rate(erp_http_requests_total[$__rate_interval])) > 0)"
            ),
            unit="percentunit",
            steps=((0, "green"), (0.01, "orange"), (0.05, "red")),
            no_value="no requests",
            decimals=1,
        ),
    ]


def _query_times() -> Panel:
    return panels.heatmap(
        Place(
            7,
            "Query times",
            "How many database queries took how long: the darker, the more. Everything above the line of 1 s is slow.",
            x=0,
            y=4,
            w=12,
            h=9,
        ),
        Query(
            f"sum by (le) (increase(erp_db_query_duration_seconds_bucket{{{_QUERIES}}}[$__rate_interval]))",
            "{{le}}",
            format="heatmap",
        ),
        unit="s",
        no_value="no queries",
    )


def _slowest() -> Panel:
    bucket, total, count = (f"erp_db_query_duration_seconds_{part}" for part in ("bucket", "sum", "count"))

    def each(metric: str) -> str:
        return f"sum by (query_name) (increase({metric}{{{_QUERIES}}}[$__range]))"

    quantile = f"histogram_quantile(0.95, sum by (le, query_name) (rate({bucket}{{{_QUERIES}}}[$__range]))) > 0"
    slow = f"round({each('erp:db_slow_queries:total')})"
    expressions = (
        quantile,
        f"{each(total)} / ({each(count)} > 0)",
        f"round({each('erp_db_query_count_total')})",
        slow,
        each(total),
    )
    names = ("95 %", "Mean", "Calls", "Over 1 s", "Total")
    values = [f"Value #{letter}" for letter in "ABCDE"]
    coloured = {"type": "color-background", "mode": "basic"}
    return panels.table(
        Place(
            8,
            "Ten slowest queries",
            "By the time under which 95 of 100 of its calls stay. Red from 1 s; Total is the time spent on all calls.",
            x=12,
            y=4,
            w=12,
            h=9,
        ),
        [Query(expr, instant=True, format="table") for expr in expressions],
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "sortBy", "options": {"sort": [{"desc": True, "field": "Value #A"}]}},
            {"id": "limit", "options": {"limitField": 10}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {"query_name": 0} | {value: i + 1 for i, value in enumerate(values)},
                    "renameByName": {"query_name": "Query"} | dict(zip(values, names, strict=True)),
                },
            },
        ],
        overrides=[
            panels.column("95 %", unit="s", thresholds=panels.thresholds(SLOW), custom__cellOptions=coloured),
            panels.column("Mean", unit="s", thresholds=panels.thresholds(SLOW), custom__cellOptions=coloured),
            panels.column("Over 1 s", thresholds=panels.thresholds(((0, "green"), (1, "orange"))), decimals=0),
            panels.column("Calls", decimals=0),
            panels.column("Total", unit="s"),
        ],
        no_value="no queries",
    )


def _endpoints() -> Panel:
    return panels.timeseries(
        Place(
            9,
            "Queries per minute, by endpoint",
            "How many database queries each endpoint of the ERP sends. Dashed: the limits above which an alert fires.",
            x=0,
            y=13,
            w=8,
            h=8,
        ),
        [
            Query(
                f"sum by (endpoint) (rate(erp_endpoint_db_queries_total{{{_ENDPOINTS}}}[$__rate_interval])) * 60",
                "{{endpoint}}",
            ),
            Query("max(erp:endpoint_db_queries_default_limit:per_minute)", "limit"),
            Query(
                f"max by (endpoint) (erp:endpoint_db_queries_limit:per_minute{{{_ENDPOINTS}}})",
                "limit of {{endpoint}}",
            ),
        ],
        unit="suffix:/min",
        no_value="no queries",
        overrides=[panels.dashed("^limit", "orange")],
    )


def _machines() -> Panel:
    available, total = (f"node_memory_{part}_bytes{{{_HOSTS}}}" for part in ("MemAvailable", "MemTotal"))
    return panels.timeseries(
        Place(
            10,
            "CPU and memory",
            "Share of each host's processors that is busy, and (dashed) of its memory that is in use.",
            x=8,
            y=13,
            w=8,
            h=8,
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
            "Pool connections that the ERP has checked out, and (dashed) PostgreSQL's sessions by state.",
            x=16,
            y=13,
            w=8,
            h=8,
        ),
        [
            Query("sum(erp_db_active_connections)", "ERP, checked out"),
            Query("sum by (state) (pg_stat_activity_connections)", "PostgreSQL, {{state}}"),
        ],
        unit="short",
        no_value="no connections",
        overrides=[panels.dashed("^PostgreSQL")],
    )
