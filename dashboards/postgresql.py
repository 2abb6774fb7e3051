"""The dashboard "PostgreSQL": is the server well, what does it do and wait for, which statements cost most."""

from typing import Any

from grafanalib.core import Dashboard, Templating, Time

from dashboards import panels
from dashboards.canonical import SCHEMA_VERSION
from dashboards.panels import Panel, Place, Query

UID = "postgresql"

_HOST = 'host=~"$host"'
_DATABASE = 'host=~"$host", datname=~"$datname"'


def build() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        title="PostgreSQL",
        uid=UID,
        description="Is the server well, what does it do, what does it wait for, and which statements cost most.",
        tags=["messwarte"],
        schemaVersion=SCHEMA_VERSION,
        editable=False,
        graphTooltip=1,
        refresh="30s",
        time=Time("now-1h", "now"),
        timezone="browser",
        links=[panels.dashboard_link("ERP overview", "erp-overview")],
        templating=Templating(
            list=[
                panels.data_source_variable(),
                panels.variable("host", "Host", "pg_up"),
                panels.variable("datname", "Database", "pg_stat_database_commits_total"),
            ]
        ),
        panels=[*_tiles(), _connections(), _transactions(), _waiting(), _oldest(), _cache(), _temporary(), *_rest()],
    )


def _tiles() -> list[Panel]:
    deadlocks = f"increase(pg_stat_database_deadlocks_total{{{_DATABASE}}}[1h])"
    hit, read = (f"sum(rate(pg_stat_database_blocks_{part}_total{{{_DATABASE}}}[5m]))" for part in ("hit", "read"))
    used = f"sum by (host) (pg_stat_activity_connections{{{_HOST}}})"
    usable = f"(pg_settings_max_connections{{{_HOST}}} - pg_settings_superuser_reserved_connections{{{_HOST}}})"
    return [
        panels.stat(
            _tile(1, "Status", "Whether PostgreSQL answers the exporter."),
            Query(f"min(pg_up{{{_HOST}}})", instant=True),
            unit="none",
            steps=((0, "red"), (1, "green")),
            no_value="not measured",
            mappings=[
                {"options": {"0": {"index": 0, "text": "Down"}, "1": {"index": 1, "text": "Up"}}, "type": "value"}
            ],
        ),
        panels.stat(
            _tile(2, "Sessions", "Sessions of those that the server admits to others than superusers. Red from 90 %."),
            Query(f"max({used} / max by (host) ({usable}))", "of the limit", instant=True),
            unit="percentunit",
            steps=((0, "green"), (0.75, "orange"), (0.9, "red")),
            no_value="not measured",
            decimals=0,
        ),
        panels.stat(
            _tile(
                3, "Oldest", "Age of the oldest open transaction: it keeps vacuum from its work. Red from 15 minutes."
            ),
            Query(f"max(pg_stat_activity_oldest_transaction_age_seconds{{{_HOST}}})", "transaction", instant=True),
            unit="s",
            steps=((0, "green"), (300, "orange"), (900, "red")),
            no_value="not measured",
            decimals=0,
        ),
        panels.stat(
            _tile(4, "Waiting", "Lock requests that are not granted at this moment."),
            Query(f"sum(pg_locks_waiting{{{_HOST}}})", "for locks", instant=True),
            unit="none",
            steps=((0, "green"), (1, "orange"), (10, "red")),
            no_value="not measured",
        ),
        panels.stat(
            _tile(5, "Cache", "Share of blocks that the last 5 minutes' queries found in shared buffers."),
            Query(f"{hit} / ({hit} + {read} > 0)", "hits", instant=True),
            unit="percentunit",
            steps=((0, "red"), (0.9, "orange"), (0.99, "green")),
            no_value="no blocks",
            decimals=1,
        ),
        panels.stat(
            _tile(6, "Locked", "Deadlocks that the server broke in the last 60 minutes."),
            Query(f"round(sum({deadlocks}))", "deadlocks, 1 h", instant=True),
            unit="none",
            steps=((0, "green"), (1, "orange")),
            no_value="not measured",
        ),
    ]


def _tile(number: int, title: str, description: str) -> Place:
    return Place(number, title, description, x=4 * (number - 1), y=0, w=4, h=3)


def _connections() -> Panel:
    return panels.timeseries(
        Place(
            7,
            "Sessions by state",
            "Client sessions of all databases chosen, by what they do; dashed is how many the server admits in all.",
            x=0, y=3, w=12, h=8,
        ),
        [
            Query(f"sum by (state) (pg_stat_activity_connections{{{_DATABASE}}}) > 0", "{{state}}"),
            Query(f"max by (host) (pg_settings_max_connections{{{_HOST}}})", "limit of {{host}}"),
        ],
        unit="short",
        no_value="no sessions",
        overrides=[panels.dashed("^limit", "orange")],
    )  # fmt: skip


def _transactions() -> Panel:
    def rate(metric: str) -> str:
        return f"sum by (datname) (rate(pg_stat_database_{metric}_total{{{_DATABASE}}}[$__rate_interval]))"

    return panels.timeseries(
        Place(
            8,
            "Transactions per second",
            "Commits of each database, and (dashed) its rollbacks.",
            x=12, y=3, w=12, h=8,
        ),
        [Query(rate("commits"), "{{datname}}"), Query(rate("rollbacks"), "rollbacks {{datname}}")],
        unit="suffix:/s",
        no_value="no databases",
        overrides=[panels.dashed("^rollbacks")],
    )  # fmt: skip


def _waiting() -> Panel:
    return panels.timeseries(
        Place(
            9,
            "What active sessions wait for",
            'Active sessions by the kind of event they wait for; "none" computes. Many that wait for Lock wait for each'
            " other, for IO the disks.",
            x=0, y=11, w=12, h=8,
        ),
        [
            Query(
                f"sum by (wait_event_type) (pg_stat_activity_active_backends{{{_HOST}}})",
                "{{wait_event_type}}",
            )
        ],
        unit="short",
        no_value="not measured",
        many=True,
    )  # fmt: skip


def _oldest() -> Panel:
    names = {
        "pg_stat_activity_oldest_transaction_age_seconds": "open transaction",
        "pg_stat_activity_oldest_query_age_seconds": "running query",
        "pg_stat_activity_oldest_idle_in_transaction_age_seconds": "idle in transaction",
        "pg_locks_longest_wait_seconds": "wait for a lock",
    }
    return panels.timeseries(
        Place(
            10,
            "Longest of their kind",
            "Ages of the oldest open transaction, query, idle transaction and wait for a lock.",
            x=12, y=11, w=12, h=8,
        ),
        [Query(f"max({metric}{{{_HOST}}})", name) for metric, name in names.items()],
        unit="s",
        no_value="not measured",
    )  # fmt: skip


def _cache() -> Panel:
    hit, read = (
        f"sum by (datname) (rate(pg_stat_database_blocks_{part}_total{{{_DATABASE}}}[$__rate_interval]))"
        for part in ("hit", "read")
    )
    return panels.timeseries(
        Place(
            11,
            "Blocks read from outside of shared buffers",
            "Blocks per second that were not in shared buffers, by database. The operating system may still have them.",
            x=0, y=19, w=8, h=8,
        ),
        [Query(read, "{{datname}}"), Query(f"{read} / ({hit} + {read} > 0)", "share of {{datname}}")],
        unit="suffix:/s",
        no_value="no databases",
        overrides=[panels.dashed("^share of"), panels.right("^share of", "percentunit")],
    )  # fmt: skip


def _temporary() -> Panel:
    return panels.timeseries(
        Place(
            12,
            "Temporary files",
            "Bytes per second written by queries whose sorting or hashing did not fit into work_mem, by database.",
            x=8, y=19, w=8, h=8,
        ),
        [
            Query(
                f"sum by (datname) (rate(pg_stat_database_temp_bytes_total{{{_DATABASE}}}[$__rate_interval]))",
                "{{datname}}",
            )
        ],
        unit="Bps",
        no_value="no databases",
    )  # fmt: skip


def _rest() -> list[Panel]:
    size = panels.timeseries(
        Place(13, "Size", "Disk space of each database.", x=16, y=19, w=8, h=8),
        [Query(f"sum by (datname) (pg_database_size_bytes{{{_DATABASE}}})", "{{datname}}")],
        unit="bytes",
        no_value="no databases",
    )
    return [size, _statements()]


def _statements() -> Panel:
    def grown(metric: str) -> str:
        return f"sum by (queryid, datname) (increase(pg_stat_statements_{metric}_total{{{_DATABASE}}}[$__range]))"

    total, calls = grown("seconds"), grown("calls")
    named = f"max by (queryid, query) (pg_stat_statements_info{{{_HOST}}})"
    columns = {
        "Total": f"topk(15, {total} > 0) * on (queryid) group_left (query) {named}",
        "Calls": f"round({calls} > 0)",
        "Mean": f"{total} / ({calls} > 0)",
        "Rows": f"round({grown('rows')})",
        "Read": f"{grown('blocks_read')}",
    }
    values = [f"Value #{letter}" for letter in "ABCDE"]
    return panels.table(
        Place(
            14,
            "Statements that took the most time",
            "Within the time range: time, calls, mean time, rows, and blocks that were not in shared buffers."
            " Empty where pg_stat_statements is not loaded or not created.",
            x=0,
            y=27,
            w=24,
            h=11,
        ),
        [Query(expr, instant=True, format="table") for expr in columns.values()],
        transformations=[
            {"id": "merge", "options": {}},
            {
                "id": "filterByValue",
                "options": {
                    "filters": [{"config": {"id": "isNull", "options": {}}, "fieldName": "Value #A"}],
                    "match": "any",
                    "type": "exclude",
                },
            },
            {"id": "sortBy", "options": {"sort": [{"desc": True, "field": "Value #A"}]}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True, "queryid": True},
                    "indexByName": {"query": 0, "datname": 1} | {value: i + 2 for i, value in enumerate(values)},
                    "renameByName": {"query": "Statement", "datname": "Database"} | _renamed(values, columns),
                },
            },
        ],
        overrides=[
            panels.column("Statement", custom__minWidth=400),
            panels.column("Database", custom__width=120),
            *(panels.column(name, unit="s", custom__width=90) for name in ("Total", "Mean")),
            *(panels.column(name, unit="locale", decimals=0, custom__width=100) for name in ("Calls", "Rows", "Read")),
        ],
        no_value="no statements are measured",
    )


def _renamed(values: list[str], columns: dict[str, Any]) -> dict[str, str]:
    return dict(zip(values, columns, strict=True))
