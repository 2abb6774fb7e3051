"""The tiles on top of "ERP overview": one number each, whose colour says whether all is well."""

from typing import Any

from dashboards import panels
from dashboards.panels import SLOW, Panel, Place, Query

DOWN = "up == 0"
FIRING = 'ALERTS{alertstate="firing", severity!="none"}'

_BAD = ((0, "green"), (1, "red"))
_DOUBTFUL = ((0, "green"), (1, "orange"))
_STATUS = ("Up", "Database down", "ERP down", "Both down")


def tiles() -> list[Panel]:
    """Return the tiles, from left to right."""
    return [_status(), _targets(), _alerts(), _slow_queries(), _query_time(), _http_errors()]


def _place(number: int, title: str, description: str) -> Place:
    return Place(number, title, description, x=4 * (number - 1), y=0, w=4, h=3)


def _status() -> Panel:
    return panels.stat(
        _place(1, "Status", "Up when the ERP and PostgreSQL both answer; else it says which of them does not."),
        Query('2 * (1 - min(up{job="erp"})) + (1 - min(pg_up))', instant=True),
        unit="none",
        steps=_BAD,
        no_value="not measured",
        mappings=[_mapping(_STATUS)],
    )


def _mapping(texts: tuple[str, ...]) -> dict[str, Any]:
    return {
        "options": {str(value): {"index": value, "text": text} for value, text in enumerate(texts)},
        "type": "value",
    }


def _targets() -> Panel:
    return panels.stat(
        _place(
            2,
            "Targets",
            "How many targets Prometheus cannot reach. Where it names none of them, the marks in the charts do.",
        ),
        Query(_named(DOWN, ("job", "host")), "down: {{job}} {{host}}", instant=True),
        unit="none",
        steps=_BAD,
        no_value="not measured",
    )


def _alerts() -> Panel:
    return panels.stat(
        _place(3, "Alerts", "How many alerts fire now. Where it names none of them, the marks in the charts do."),
        Query(
            _named(FIRING, ("alertname",)),
            "firing: {{alertname}}",
            instant=True,
        ),
        unit="none",
        steps=_DOUBTFUL,
        no_value="not measured",
    )


def _named(series: str, labels: tuple[str, ...]) -> str:
    """Return how many series there are, with their labels where all have the same: a tile has room for one name."""
    each = f"count by ({', '.join(labels)}) ({series})"
    return (
        f"({each} and on () count({each}) == 1)"
        f' or on () label_replace(count({series}), "{labels[0]}", "several", "", "")'
        f' or on () label_replace(vector(0), "{labels[0]}", "none", "", "")'
    )


def _slow_queries() -> Panel:
    slow = panels.increase("query_name, instance", "erp:db_slow_queries:total", "1h:")
    return panels.stat(
        _place(4, "Slow", "Database queries that took longer than 1 s in the last 60 minutes."),
        Query(f"round(sum({slow}))", "queries, last hour", instant=True),
        unit="locale",
        steps=_DOUBTFUL,
        no_value="not measured",
        decimals=0,
    )


def _query_time() -> Panel:
    bucket = "erp_db_query_duration_seconds_bucket"
    return panels.stat(
        _place(5, "Time", "95 of 100 database queries of the last 2 minutes were faster than this. Red from 1 s."),
        Query(f"histogram_quantile(0.95, sum by (le) (rate({bucket}[2m]))) >= 0", "95 % below", instant=True),
        unit="s",
        steps=SLOW,
        no_value="no queries",
        decimals=1,
    )


def _http_errors() -> Panel:
    return panels.stat(
        _place(6, "Errors", "Share of the ERP's answers in the last 2 minutes that had status 500 or above."),
        Query(
            '(sum(rate(erp_http_requests_total{status=~"5.."}[2m])) or vector(0))'
            " / (sum(rate(erp_http_requests_total[2m])) > 0)",
            "HTTP, last 2 min",
            instant=True,
        ),
        unit="percentunit",
        steps=((0, "green"), (0.01, "orange"), (0.05, "red")),
        no_value="no requests",
        decimals=1,
    )
