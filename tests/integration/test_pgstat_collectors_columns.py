"""Every figure is the one of its column: statistics views of which no two columns are the same, on every version.

Work done by hand leaves most counters at 0 or at each other's value, where one may stand for another unnoticed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from pgstat_exporter import content
from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_collectors import major_of, reading
from tests.integration.pgstat_column_names import OTHERS, on_primary, on_standby
from tests.integration.pgstat_exporter_process import Answer, monitor_on
from tests.integration.postgres_versions import MAJORS, Versions, replica_of

VIEWS = (
    "pg_stat_slru", "pg_stat_database", "pg_stat_database_conflicts", "pg_stat_archiver", "pg_stat_wal", "pg_stat_io",
    "pg_stat_bgwriter", "pg_stat_checkpointer", "pg_replication_slots", "pg_stat_replication_slots",
    "pg_stat_replication", "pg_stat_recovery_prefetch", "pg_stat_wal_receiver", "pg_stat_subscription",
    "pg_stat_subscription_stats", "pg_stat_statements_info", "pg_stat_progress_vacuum", "pg_stat_progress_analyze",
    "pg_stat_progress_create_index", "pg_stat_progress_cluster", "pg_stat_progress_copy", "pg_stat_progress_basebackup",
)  # fmt: skip
# By type, so that no two columns of a view have the same; WAL positions and ids are old ones.
CONSTANTS = {
    "bigint": "{0}::bigint", "integer": "{0}", "numeric": "{0}::numeric", "double precision": "{0}::float8",
    "timestamp with time zone": "to_timestamp(1700000000 + {0})", "interval": "make_interval(secs => {0})",
    "pg_lsn": "'0/0'::pg_lsn + {1} * 1000000", "xid": "(100 + {1})::text::xid",
}  # fmt: skip
# What the command of a held session would show.
COMMAND = {"pid": "{pid}", "relid": "'dusty'::regclass::oid", "datname": "'postgres'::name", "phase": "'phase'::text",
           "command": "'COMMAND'::text"}  # fmt: skip
COLUMNS = """SELECT attname, format_type(atttypid, NULL), attnum FROM pg_attribute
    WHERE attrelid = '{}'::regclass AND attnum > 0 ORDER BY attnum"""
STATEMENTS = """SELECT pg_get_function_arguments(oid), names, types FROM pg_proc, LATERAL (
    SELECT array_agg(n ORDER BY o) AS names, array_agg(format_type(t, NULL) ORDER BY o) AS types
    FROM unnest(proargnames, proallargtypes, proargmodes) WITH ORDINALITY AS a (n, t, m, o) WHERE m = 'o'
) AS a WHERE proname = 'pg_stat_statements'"""
FUNCTIONS = """SELECT proname, format_type(prorettype, NULL) FROM pg_proc
    WHERE proname ~ '^pg_stat_get_' AND proargtypes = '26' AND prorettype IN ('int8'::regtype, 'float8'::regtype,
        'timestamptz'::regtype) AND proname !~ '_(db|backend)_' ORDER BY 1"""


@dataclass
class Figures:
    """Metrics of a collector and the expressions over a row that they must be; labels by expressions, too."""

    collector: str
    rows: str
    labels: dict[str, str]
    metrics: dict[str, str] = field(default_factory=dict)


def made_distinct(server: PostgresServer, pid: int) -> None:
    """Replace statistics views, and the functions below others, by ones that give each column a number of its own."""
    with psycopg.connect(server.dsn(), autocommit=True) as session:
        session.execute("SET allow_system_table_mods = on")
        for place, view in enumerate(VIEWS):
            there = session.execute("SELECT pg_get_viewdef(to_regclass(%s))", [view]).fetchone()
            if not there or there[0] is None:
                continue
            fixed = {name: text.format(pid=pid) for name, text in COMMAND.items()} if "_progress_" in view else {}
            schema = "public" if "_statements" in view else "pg_catalog"
            shape = session.execute(COLUMNS.format(view).encode()).fetchall()
            columns = [
                fixed.get(name) or CONSTANTS.get(kind, f"o.{name}").format(1000 * place + 10 * number, number)
                for name, kind, number in shape
            ]
            # A row also where there was none.
            text = (
                f"SELECT {', '.join(columns)} FROM (VALUES (1)) AS one LEFT JOIN ({there[0].rstrip(';')}) AS o ON true"  # noqa: S608
            )
            names = [name for name, *_ in shape]
            session.execute(f"CREATE OR REPLACE VIEW {schema}.{view} ({', '.join(names)}) AS {text}".encode())
        ((arguments, names, types),) = session.execute(STATEMENTS.encode()).fetchall()
        others = {"userid": "10::oid", "dbid": "(SELECT oid FROM pg_database WHERE datname = 'postgres')",
                  "toplevel": "true", "query": "'SELECT 1'::text"}  # fmt: skip
        columns = [
            others.get(name) or CONSTANTS[kind].format(100_000 + 10 * number, number)
            for number, (name, kind) in enumerate(zip(names, types, strict=True))
        ]
        session.execute(
            f"CREATE OR REPLACE FUNCTION pg_stat_statements({arguments}) RETURNS SETOF record LANGUAGE sql "
            f"AS $$ SELECT {', '.join(columns)} $$".encode()
        )
        for number, (name, kind) in enumerate(session.execute(FUNCTIONS.encode()).fetchall()):
            value = CONSTANTS[kind].format(f"({20_000 + 10 * number} * (1 + $1::bigint % 997))", 0)
            session.execute(
                f"CREATE OR REPLACE FUNCTION pg_catalog.{name}(oid) RETURNS {kind} LANGUAGE sql STABLE "
                f"AS $$ SELECT {value} $$".encode()
            )


@pytest.fixture(scope="module", params=MAJORS)
def distinct(versions: Versions, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server whose statistics are made up, with something to have statistics of."""
    settings = "autovacuum = off\narchive_mode = on\narchive_command = 'true'\n"
    with versions.server(request.param, settings) as server, psycopg.connect(server.dsn(), autocommit=True) as held:
        server.execute("CREATE EXTENSION pg_stat_statements; CREATE TABLE dusty (id int PRIMARY KEY, name text)")
        server.execute("CREATE INDEX ON dusty (name); ANALYZE dusty")
        server.execute("SELECT pg_create_logical_replication_slot('seen', 'pgoutput')")
        server.execute("CREATE SUBSCRIPTION seen CONNECTION 'host=192.0.2.1' PUBLICATION none WITH (connect = false)")
        # A command counts from its start.
        held.execute("SELECT 1")
        monitor_on(server)
        made_distinct(server, held.info.backend_pid)
        yield server


def wanted(server: PostgresServer, figures: Figures) -> Iterator[tuple[str, dict[str, str], float]]:
    """Return metrics with their labels and values, as the row says."""
    both = [*figures.labels.values(), *figures.metrics.values()]
    with psycopg.connect(server.dsn(), autocommit=True) as session:
        (row,) = session.execute(f"SELECT {', '.join(both)} FROM {figures.rows}".encode()).fetchall()  # noqa: S608
    labels = dict(zip(figures.labels, row, strict=False))
    for name, value in zip(figures.metrics, row[len(labels) :], strict=True):
        assert value is not None, name
        yield name, labels, float(value)


def differing(server: PostgresServer, answer: Answer, all_figures: list[Figures]) -> list[object]:
    """Return what is shown otherwise than it should be."""
    return [
        (name, labels, shown, value)
        for figures in all_figures
        for name, labels, value in wanted(server, figures)
        if (shown := answer.value(name, **labels)) != pytest.approx(value, rel=1e-9)
    ]


def agrees(server: PostgresServer, folder: Path, all_figures: list[Figures]) -> None:
    """Wait until an exporter agrees; a little WAL may be written between its look and ours."""
    with reading(server, folder, *{one.collector for one in all_figures}) as exporter:
        try:
            wait_until(lambda: not differing(server, exporter.scrape(), all_figures), "the exporter agrees", 20)
        except pytest.fail.Exception:
            answer = exporter.scrape()
            pytest.fail(f"{differing(server, answer, all_figures)}\n{answer.success()}")


def test_every_column_on_a_primary(distinct: PostgresServer, tmp_path: Path) -> None:
    """By name; and no metric of these collectors is left out but those that are no column of a view."""
    major = major_of(distinct)
    all_figures = [Figures(*one) for one in on_primary(major)]
    agrees(distinct, tmp_path, all_figures)
    compared = {name for one in all_figures + [Figures(*one) for one in on_standby(major)] for name in one.metrics}
    for name in {one.collector for one in all_figures}:
        measured = {one.name for query in content.load()[name].declaration.queries for one in query.measured(major)}
        assert measured - compared == {one for one in OTHERS if one in measured}, name


def test_every_column_on_a_standby(distinct: PostgresServer, tmp_path: Path) -> None:
    """What only a standby counts."""
    with replica_of(distinct) as replica:
        agrees(replica, tmp_path, [Figures(*one) for one in on_standby(major_of(distinct))])
