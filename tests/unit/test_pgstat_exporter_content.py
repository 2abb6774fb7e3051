"""The collectors' declarations against their SQL, and rows against metric families."""

import gzip
import zlib
from pathlib import Path

import pytest

from pgstat_exporter import content, reference
from pgstat_exporter.content import Query, Variant
from pgstat_exporter.exposition import BadContent, Family, Part, Samples, label_texts, sample_lines
from pgstat_exporter.packing import gzipped, join
from pgstat_exporter.strict import Problem
from pgstat_exporter.web import answer_within

COLLECTORS = content.load()
FOLDER = Path(content.__file__).parent / "collectors"
TABLE = Path(__file__).resolve().parents[2] / "docs" / "pgstat-exporter-metrics.md"
FIXED = {
    "pg_server_info", "pg_postmaster_start_time_seconds", "pg_settings_max_connections",
    "pg_stat_activity_connections", "pg_stat_activity_oldest_transaction_age_seconds",
    "pg_stat_database_commits_total", "pg_stat_database_rollbacks_total", "pg_stat_database_blocks_hit_total",
    "pg_stat_database_blocks_read_total", "pg_stat_database_deadlocks_total", "pg_stat_database_temp_bytes_total",
    "pg_database_size_bytes", "pg_stat_statements_calls_total", "pg_stat_statements_seconds_total",
    "pg_stat_statements_rows_total", "pg_stat_statements_info", "pg_locks_waiting", "pg_locks_longest_wait_seconds",
}  # fmt: skip


def queries() -> list[tuple[content.Collector, Query, Variant]]:
    """Return every (collector, query, variant of its SQL)."""
    return [
        (collector, query, variant)
        for collector in COLLECTORS.values()
        for query in collector.declaration.queries
        for variant in query.sql
    ]


def test_metric_names_that_dashboards_rely_on_are_declared() -> None:
    """Names are a contract."""
    assert {metric.name for collector in COLLECTORS.values() for metric in collector.metrics()} >= FIXED


@pytest.mark.parametrize(("collector", "query", "variant"), queries(), ids=lambda value: str(value)[:40])
def test_sql_delivers_exactly_what_is_declared(collector: content.Collector, query: Query, variant: Variant) -> None:
    """No column is missing, none is fetched for nothing, whatever the variant."""
    assert sorted(content.output_columns(collector.sql[variant.file])) == sorted(query.columns(variant))


def test_every_sql_file_is_declared() -> None:
    """A file that nobody runs is dead weight."""
    declared = {file for collector in COLLECTORS.values() for file in collector.sql}
    assert declared == {path.name for path in FOLDER.glob("*.sql")}


def test_the_table_of_metrics_is_as_generated() -> None:
    """Reviewers see in its diff what a change does to names, types, labels and versions."""
    written = "\n".join(reference.markdown(COLLECTORS.values())) + "\n"
    assert TABLE.read_text() == written, "run: python3 -m pgstat_exporter metrics > docs/pgstat-exporter-metrics.md"


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
    """Each version is asked for the columns that it has, and a view that it lacks for none."""
    (slots,), (io,) = (COLLECTORS[name].declaration.queries for name in ("slots", "io"))
    chosen = [(slots.choose(version, frozenset()), io.choose(version, frozenset())) for version in (15, 16, 17, 18, 19)]
    assert [(one and one.file, other and other.file) for one, other in chosen] == [
        ("slots_15.sql", None),
        ("slots_16.sql", "io_16.sql"),
        ("slots_17.sql", "io_16.sql"),
        ("slots_17.sql", "io_18.sql"),
        ("slots_17.sql", "io_18.sql"),
    ]


def broken(tmp_path: Path, declaration: str, sql: str = "SELECT 1 AS n\n") -> str:
    """Return what loading a collector of one's own says."""
    (tmp_path / "mine.yaml").write_text(declaration)
    (tmp_path / "mine.sql").write_text(sql)
    with pytest.raises(Problem) as caught:
        content.load(tmp_path)
    return str(caught.value)


METRIC = "{name: pg_mine, type: gauge, column: n, help: Mine.}"
MINE = "help: Mine.\nqueries:\n  - source: mine\n    sql: [{file: mine.sql}]\n    metrics: [METRIC]\n"


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
        (MINE.replace("METRIC", METRIC) + "scope: database\n", "scope: database wants every"),
        (
            MINE.replace("METRIC", METRIC.replace("column", "since: 17, until: 16, column")),
            "since 17 is after until 16",
        ),
        (MINE.replace("METRIC", METRIC) + "    labels: [n, m, n]\n", "queries.0.labels: n is there twice"),
        (MINE.replace("METRIC", METRIC.replace("column: n", "column: n, labels: [m, m]")), "labels: m is there twice"),
        (MINE.replace("METRIC", METRIC.replace("pg_mine", "pg_up")), "pg_up is a name of the exporter's own metrics"),
        (
            MINE.replace("METRIC", METRIC.replace("pg_mine", "process_mine")),
            "process_mine is a name of the exporter's own",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(tmp_path: Path, declaration: str, said: str) -> None:
    """Content is checked when it is loaded, not at the first scrape."""
    message = broken(tmp_path, declaration)
    assert said in message
    assert message.startswith("mine.")


def test_one_fault_is_one_line(tmp_path: Path) -> None:
    """What holds it is not said to be empty besides."""
    message = broken(tmp_path, MINE.replace("METRIC", METRIC.replace("column", "colum")))
    assert message == "mine.yaml: queries.0.metrics.0.colum: no such setting; did you mean column?"


def test_a_file_that_looks_like_a_declaration_and_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(MINE)
    with pytest.raises(Problem, match=r"mine\.yml: the name of a collector's declaration ends in \.yaml"):
        content.load(tmp_path)


@pytest.mark.parametrize("end", ["", ";", " ;\n\n", "; -- done", ";\n-- it's\n", "; -- one\n-- two\n"])
def test_a_statement_may_end_as_people_end_it(tmp_path: Path, end: str) -> None:
    (tmp_path / "mine.yaml").write_text(MINE.replace("METRIC", METRIC))
    (tmp_path / "mine.sql").write_text(f"SELECT 1 AS n{end}")
    assert content.load(tmp_path)["mine"].sql["mine.sql"].partition("n")[2] in {"", " "}


def test_files_that_cannot_be_read_are_refused_with_their_place(tmp_path: Path) -> None:
    """A declaration or SQL that is no UTF-8, and a link that leads nowhere."""
    (tmp_path / "odd.yaml").write_bytes(b"help: \xff\n")
    with pytest.raises(Problem, match=r"odd\.yaml: cannot be read: 'utf-8' codec"):
        content.load(tmp_path)
    (tmp_path / "odd.yaml").unlink()
    (tmp_path / "odd.yaml").symlink_to("nowhere")
    with pytest.raises(Problem, match=r"odd\.yaml: cannot be read"):
        content.load(tmp_path)


def test_null_is_absent_and_digits_stay() -> None:
    """Values pass as PostgreSQL writes them, NULL is no sample, an odd label is escaped."""
    labels = label_texts(["who"], [0], [["a"], [None], ['"b\\\n']], 'datname="erp"')
    assert sample_lines("pg_mine", labels, ["3", None, "0.1000000000000000055"]) == [
        'pg_mine{datname="erp",who="a"} 3\n',
        'pg_mine{datname="erp",who="\\"b\\\\\\n"} 0.1000000000000000055\n',
    ]


@pytest.mark.parametrize(("labels", "values"), [(["a", "a"], ["1", "2"]), (["a"], ["t"]), (["a"], [""])])
def test_rows_that_would_spoil_the_whole_scrape_fail_their_collector(labels: list[str], values: list[str]) -> None:
    """Prometheus refuses an answer with one series twice; texts are no numbers."""
    with pytest.raises(BadContent, match="pg_mine"):
        sample_lines("pg_mine", labels, values)


def test_parts_that_were_compressed_apart_are_one_gzip_member() -> None:
    """Several members would be a file, too, but clients stop behind the first; the checksum is that of the whole."""
    many = [f'pg_b{{n="{number}"}} {number}\n' for number in range(5000)]
    parts = [
        Part([Family(f"pg_{name}", "gauge", "Help.", [Samples(lines, pack=pack), Samples([], pack=pack)])])
        for name, lines, pack in (
            ("a", ["pg_a 1\n"], False),
            ("b", many, True),
            ("c", [], True),
            ("d", ["pg_d ü\n"], True),
        )
    ]
    texts = {"a": "pg_a 1\n", "b": "".join(many), "d": "pg_d ü\n"}
    wanted = "".join(f"# HELP pg_{name} Help.\n# TYPE pg_{name} gauge\n{text}" for name, text in texts.items()).encode()
    packed = gzipped(join(part.packed() for part in parts))
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert reader.decompress(packed) == wanted
    assert (reader.eof, reader.unused_data) == (True, b"")
    assert b"".join(part.plain for part in parts) == wanted
    assert gzip.decompress(gzipped(join([]))) == b""


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("10", 9.5), ("2", 1.8), (None, 4.5), ("soon", 4.5), ("nan", 4.5), ("inf", 4.5), ("-1", 4.5)],
)
def test_the_scrapers_timeout_leaves_a_margin(header: str | None, seconds: float) -> None:
    """Half a second, or a tenth of short timeouts; nonsense counts as unsaid (here 5 s)."""
    assert answer_within(header, 5) == pytest.approx(seconds)
