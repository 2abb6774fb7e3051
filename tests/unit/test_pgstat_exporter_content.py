"""The collectors' declarations against their SQL, and rows against metric families."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pgstat_exporter import config, content
from pgstat_exporter.collect import BadContent, to_families
from pgstat_exporter.content import Query
from pgstat_exporter.scrape import Exporter
from pgstat_exporter.session import Session
from pgstat_exporter.strict import Problem
from pgstat_exporter.web import answer_within

COLLECTORS = content.load()
FOLDER = Path(content.__file__).parent / "collectors"
README = Path(content.__file__).parents[2] / "README.md"
FIXED = {
    "pg_server_info", "pg_postmaster_start_time_seconds", "pg_settings_max_connections",
    "pg_stat_activity_connections", "pg_stat_activity_oldest_transaction_age_seconds",
    "pg_stat_database_commits_total", "pg_stat_database_rollbacks_total", "pg_stat_database_blocks_hit_total",
    "pg_stat_database_blocks_read_total", "pg_stat_database_deadlocks_total", "pg_stat_database_temp_bytes_total",
    "pg_database_size_bytes", "pg_stat_statements_calls_total", "pg_stat_statements_seconds_total",
    "pg_stat_statements_rows_total", "pg_stat_statements_info", "pg_locks_waiting", "pg_locks_longest_wait_seconds",
}  # fmt: skip


def queries() -> list[tuple[content.Collector, Query, str]]:
    """Return every (collector, query, SQL file)."""
    return [
        (collector, query, variant.file)
        for collector in COLLECTORS.values()
        for query in collector.declaration.queries
        for variant in query.sql
    ]


def test_metric_names_that_dashboards_rely_on_are_declared() -> None:
    """Names are a contract."""
    assert {metric.name for collector in COLLECTORS.values() for metric in collector.metrics()} >= FIXED


@pytest.mark.parametrize(("collector", "query", "file"), queries(), ids=lambda value: str(value)[:40])
def test_sql_delivers_exactly_what_is_declared(collector: content.Collector, query: Query, file: str) -> None:
    """No column is missing, none is fetched for nothing, whatever the variant."""
    assert sorted(content.output_columns(collector.sql[file])) == sorted(query.columns())


def test_every_sql_file_is_declared() -> None:
    """A file that nobody runs is dead weight."""
    declared = {file for collector in COLLECTORS.values() for file in collector.sql}
    assert declared == {path.name for path in FOLDER.glob("*.sql")}


def test_readme_lists_every_metric() -> None:
    """The table in the README is complete and names nothing that is gone."""
    lines = README.read_text().splitlines()
    listed = [line.split("`")[1].split("{")[0] for line in lines if line.startswith("| `pg_")]
    declared = [metric.name for collector in COLLECTORS.values() for metric in collector.metrics()]
    own = ["pg_up", "pg_exporter_build_info"]
    own += [f"pg_scrape_collector_{name}" for name in ("success", "duration_seconds", "skipped", "truncated")]
    assert sorted(listed) == sorted(declared + own)


def test_newest_fitting_variant_is_chosen_by_the_extensions_columns() -> None:
    """pg_upgrade leaves old extension versions, so the server's version says nothing."""
    query = COLLECTORS["statements"].declaration.queries[0]
    old = {"pg_stat_statements.total_exec_time", "pg_stat_statements.blk_read_time"}
    new = old | {"pg_stat_statements.shared_blk_read_time"}
    chosen = [query.choose(17, frozenset(columns)) for columns in (new, old, {"pg_stat_statements.total_time"})]
    assert [variant.file if variant else None for variant in chosen] == [
        "statements_1_11.sql",
        "statements_1_8.sql",
        None,
    ]


def test_server_version_gates_by_the_table() -> None:
    """PostgreSQL 18's columns are asked of 18 only."""
    query = COLLECTORS["database"].declaration.queries[1]
    assert [bool(query.choose(version, frozenset())) for version in (15, 16, 17, 18, 19)] == [False] * 3 + [True] * 2


def broken(tmp_path: Path, declaration: str, sql: str = "SELECT 1 AS n\n") -> str:
    """Return what loading a collector of one's own says."""
    (tmp_path / "mine.yaml").write_text(declaration)
    (tmp_path / "mine.sql").write_text(sql)
    with pytest.raises(Problem) as caught:
        content.load(tmp_path)
    return str(caught.value)


METRIC = "{name: pg_mine, type: gauge, column: n, help: Mine.}"
MINE = "help: Mine.\nqueries:\n  - sql: [{file: mine.sql}]\n    metrics: [METRIC]\n"


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        (MINE.replace("METRIC", METRIC.replace("pg_mine", "pg_mine_total")), "ends neither in _total"),
        (MINE.replace("METRIC", METRIC.replace("gauge", "counter")), "ends in _total"),
        (MINE.replace("METRIC", METRIC.replace("column: n, ", "")), "name a column"),
        (MINE.replace("METRIC", METRIC.replace("column: n", "column: m")), "mine.sql: no output column is named AS m"),
        (MINE.replace("METRIC", f"{METRIC}, {METRIC}"), "pg_mine is declared in mine.yaml already"),
        (MINE.replace("METRIC", METRIC).replace("mine.sql", "other.sql"), "other.sql: no such file"),
        (MINE.replace("METRIC", METRIC).replace("metrics", "metriks"), "did you mean metrics?"),
        (MINE.replace("METRIC", METRIC) + "role: pg_superpower\n", "role: must be 'pg_read_all_stats', "),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(tmp_path: Path, declaration: str, said: str) -> None:
    """Content is checked when it is loaded, not at the first scrape."""
    message = broken(tmp_path, declaration)
    assert said in message
    assert message.startswith("mine.")


QUERY = Query.model_validate(
    {
        "sql": [{"file": "mine.sql"}],
        "labels": ["who"],
        "metrics": [{"name": "pg_mine", "type": "gauge", "column": "n", "help": "Mine."}],
    }
)


def test_null_is_absent_and_not_zero() -> None:
    """Rows become samples; NULL does not; numeric and int do."""
    rows: list[dict[str, Any]] = [{"who": "a", "n": 3}, {"who": "b", "n": None}, {"who": "c", "n": Decimal("0.5")}]
    (family,) = to_families(QUERY, rows)
    assert [(sample.labels["who"], sample.value) for sample in family.samples] == [("a", 3.0), ("c", 0.5)]


@pytest.mark.parametrize("rows", [[{"who": "a", "n": 1}, {"who": "a", "n": 2}], [{"who": "a", "n": "1"}]])
def test_rows_that_would_spoil_the_whole_scrape_fail_their_collector(rows: list[dict[str, Any]]) -> None:
    """Prometheus refuses an answer with one series twice; texts are no numbers."""
    with pytest.raises(BadContent, match="pg_mine"):
        list(to_families(QUERY, rows))


def test_registering_the_exporter_asks_no_database() -> None:
    """describe() names everything, so that a registry needs no scrape to learn it."""
    settings = config.Config(dsn="host=192.0.2.1 connect_timeout=2")
    exporter = Exporter(Session(settings.dsn), config.enabled(settings, COLLECTORS, "test"))
    CollectorRegistry(auto_describe=True).register(exporter)
    described = {family.name for family in exporter.describe()}
    assert {"pg_up", "pg_stat_database_commits", "pg_stat_statements"} <= described


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("10", 9.5), ("2", 1.8), (None, 4.5), ("soon", 4.5), ("nan", 4.5), ("inf", 4.5), ("-1", 4.5)],
)
def test_the_scrapers_timeout_leaves_a_margin(header: str | None, seconds: float) -> None:
    """Half a second, or a tenth of short timeouts; nonsense counts as unsaid (here 5 s)."""
    assert answer_within(header, 5) == pytest.approx(seconds)
