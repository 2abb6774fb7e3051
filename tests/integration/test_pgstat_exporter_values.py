"""What pgstat_exporter says against what the server says by another way, with pg_monitor and nothing else."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgstat_exporter import content
from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_exporter_process import (
    COLLECTORS,
    MONITOR,
    Answer,
    RunningExporter,
    command,
    environment,
    monitor_on,
    only,
    running,
    write_config,
)


@pytest.fixture
def monitor(postgres: PostgresServer) -> str:
    """The name of a role with pg_monitor and nothing else."""
    return monitor_on(postgres)


@pytest.fixture
def statements_database(database: str) -> str:
    """A fresh database with pg_stat_statements; its connection string."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
    return database


@pytest.fixture
def exporter(statements_database: str, monitor: str, tmp_path: Path) -> Iterator[RunningExporter]:
    """An exporter on the fresh database."""
    with running(
        write_config(tmp_path, make_conninfo(statements_database, user=monitor), collectors=only(*COLLECTORS))
    ) as one:
        yield one


def name_of(dsn: str) -> str:
    """Return a connection string's database name."""
    return str(conninfo_to_dict(dsn)["dbname"])


def settled(exporter: RunningExporter, wanted: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> None:
    """Wait until every wanted sample has its value: the server passes its counters on with a delay."""
    last: dict[str, float | None] = {}

    def same() -> bool:
        answer = exporter.scrape()
        last.clear()
        last.update({str(key): answer.get(key) for key, value in wanted.items() if answer.get(key) != value})
        return not last

    try:
        wait_until(same, "the exporter agrees with the server", timeout=10)
    except pytest.fail.Exception:
        pytest.fail(f"differing: {last}; wanted {wanted}")


def test_every_collector_succeeds_with_pg_monitor_alone(exporter: RunningExporter) -> None:
    """All six deliver; none is skipped or cut short."""
    answer = exporter.scrape()
    assert answer.success() == dict.fromkeys(COLLECTORS, 1.0)
    assert answer.value("pg_up") == 1
    assert "pg_scrape_collector_skipped{" not in answer.body
    truncated = answer.labelled("pg_scrape_collector_truncated", "collector")
    # The server keeps the statements of the tests before this one, so there may be more than `top`.
    assert truncated | {"statements": 0.0} == dict.fromkeys(COLLECTORS, 0.0)


def test_metrics_of_newer_servers_are_there_exactly_where_the_server_has_the_fact(
    exporter: RunningExporter, postgres: PostgresServer
) -> None:
    """Same names on every version; absent, not 0, where the view lacks the column."""
    column = "parallel_workers_launched"
    there = postgres.execute(
        "SELECT 1 FROM pg_attribute WHERE attrelid = 'pg_stat_database'::regclass "  # noqa: S608
        f"AND attname = '{column}'"
    )
    shown = exporter.scrape().labelled(f"pg_stat_database_{column}_total", "datname")
    assert bool(shown) == bool(there)


def test_server_facts(exporter: RunningExporter, postgres: PostgresServer) -> None:
    """Version by SHOW, start by the postmaster's own note on disk, limits by pg_settings."""
    answer = exporter.scrape()
    ((version,),) = postgres.execute("SHOW server_version_num")
    major, minor = divmod(int(version), 10000)
    assert answer.value("pg_server_info", version=f"{major}.{minor}") == 1
    started = int((postgres.directory / "data" / "postmaster.pid").read_text().splitlines()[2])
    assert answer.value("pg_postmaster_start_time_seconds") == pytest.approx(started, abs=1.5)
    settings = dict(postgres.execute("SELECT name, setting FROM pg_settings"))
    for name in ("max_connections", "superuser_reserved_connections"):
        assert answer.value(f"pg_settings_{name}") == float(settings[name])
    assert answer.value("pg_in_recovery") == 0


def test_sessions_by_state_and_their_ages(
    exporter: RunningExporter, statements_database: str, postgres: PostgresServer
) -> None:
    """Sessions made by hand in each state are counted, and every other known state is 0."""
    with contextlib.ExitStack() as stack:
        idle, holder, waiter, aborted = (
            stack.enter_context(psycopg.connect(statements_database, autocommit=True)) for _ in range(4)
        )
        # So far apart that no age can be taken for another.
        idle.execute("CREATE TABLE held (id int)")
        time.sleep(1)
        holder.execute("BEGIN")
        time.sleep(1)
        holder.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        time.sleep(1)
        # Whatever fails below, the one that waits is let go before it is closed.
        stack.callback(holder.rollback)
        aborted.execute("BEGIN")
        with pytest.raises(psycopg.errors.DivisionByZero):
            aborted.execute("SELECT 1 / 0")
        waiting = threading.Thread(target=waiter.execute, args=("SELECT FROM held",))
        waiting.start()
        wait_until(lambda: len(blocked(postgres)) == 1, "one session waits")
        wanted = {"active": 1, "idle": 1, "idle in transaction": 1, "idle in transaction (aborted)": 1}
        wanted |= {"fastpath function call": 0, "disabled": 0, "starting": 0}
        database = name_of(statements_database)
        # The exporter's own session is one of the active ones.
        wanted["active"] += 1
        before = ages(postgres, database)
        answer = exporter.scrape()
        after = ages(postgres, database)
        states = {
            dict(labels)["state"]: value
            for (name, labels), value in answer.items()
            if name == "pg_stat_activity_connections" and ("datname", database) in labels
        }
        assert states == wanted
        assert answer.value("pg_stat_activity_active_backends", wait_event_type="Lock") == 1
        assert answer.value("pg_stat_activity_active_backends", wait_event_type="IO") == 0
        for kind in before:
            shown = answer.value(f"pg_stat_activity_oldest_{kind}_age_seconds")
            assert shown is not None
            assert before[kind] <= shown <= after[kind], kind
        assert answer.value("pg_locks_waiting") == 1
        wait = answer.value("pg_locks_longest_wait_seconds")
        assert wait is not None
        assert 0 < wait <= after["query"]
        assert answer.value("pg_locks_granted", mode="AccessExclusiveLock") == 1
        holder.execute("ROLLBACK")
        waiting.join()
    wait_until(lambda: not blocked(postgres), "nobody waits")
    answer = exporter.scrape()
    assert answer.value("pg_locks_waiting") == 0
    assert answer.value("pg_locks_longest_wait_seconds") == 0
    assert answer.value("pg_stat_activity_active_backends", wait_event_type="Lock") == 0


def blocked(postgres: PostgresServer) -> list[int]:
    """Return the processes that wait for another, by the lock manager itself."""
    rows = postgres.execute("SELECT pid FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0")
    return [pid for (pid,) in rows]


def ages(postgres: PostgresServer, database: str) -> dict[str, float]:
    """Return the ages in seconds as the statistics functions below the views give them."""
    ((transaction, query, idle),) = postgres.execute(f"""
        SELECT max(extract(epoch FROM clock_timestamp() - pg_stat_get_backend_xact_start(b))),
            max(extract(epoch FROM clock_timestamp() - pg_stat_get_backend_activity_start(b)))
                FILTER (WHERE pg_stat_get_backend_wait_event_type(b) = 'Lock'),
            max(extract(epoch FROM clock_timestamp() - s.state_change)) FILTER (WHERE s.state LIKE 'idle in%')
        FROM pg_stat_get_backend_idset() AS b
        JOIN pg_stat_activity AS s ON s.pid = pg_stat_get_backend_pid(b)
        WHERE s.datname = '{database}' AND s.usename = 'postgres'""")  # noqa: S608
    return {"transaction": float(transaction), "query": float(query), "idle_in_transaction": float(idle)}


DATABASE_FUNCTIONS = {
    "commits": "xact_commit", "rollbacks": "xact_rollback", "rows_inserted": "tuples_inserted",
    "rows_updated": "tuples_updated", "rows_deleted": "tuples_deleted", "deadlocks": "deadlocks",
    "temp_files": "temp_files", "temp_bytes": "temp_bytes", "sessions": "sessions", "blocks_hit": "blocks_hit",
}  # fmt: skip


def test_database_counters(exporter: RunningExporter, postgres: PostgresServer) -> None:
    """A workload counted by hand in a database that nobody else uses, against the functions below the view."""
    postgres.execute("DROP DATABASE IF EXISTS test_counted")
    postgres.execute("CREATE DATABASE test_counted")
    try:
        with psycopg.connect(postgres.dsn("test_counted")) as connection:
            connection.execute("CREATE TABLE counted AS SELECT generate_series(1, 100000) AS n")
            connection.commit()
            connection.execute("DELETE FROM counted WHERE n > 50000")
            connection.rollback()
            connection.execute("SET work_mem = '64kB'")
            connection.execute("SELECT n FROM counted ORDER BY -n OFFSET 99999")
            connection.commit()
        ((oid,),) = postgres.execute("SELECT oid FROM pg_database WHERE datname = 'test_counted'")
        functions = ", ".join(f"pg_stat_get_db_{name}({oid})" for name in DATABASE_FUNCTIONS.values())
        wait_until(lambda: postgres.execute(f"SELECT pg_stat_get_db_temp_files({oid})")[0][0] > 0, "counters arrive")
        (row,) = postgres.execute(f"SELECT {functions}")
        counted = dict(zip(DATABASE_FUNCTIONS, map(float, row), strict=True))
        assert counted["rows_inserted"] >= 100000
        assert counted["rows_deleted"] >= 50000
        assert counted["rollbacks"] >= 1
        label = frozenset({("datname", "test_counted")})
        wanted = {(f"pg_stat_database_{name}_total", label): value for name, value in counted.items()}
        settled(exporter, wanted)
    finally:
        postgres.execute("DROP DATABASE test_counted WITH (FORCE)")


def test_statements(exporter: RunningExporter, statements_database: str, postgres: PostgresServer) -> None:
    """Calls and rows counted by hand, time by the view; one series although two users ran the statement."""
    with psycopg.connect(statements_database, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
        connection.execute("CREATE TABLE artikel AS SELECT n AS id, 'secret-name' AS name FROM generate_series(1, 9) n")
        connection.execute("GRANT SELECT ON artikel TO PUBLIC")
        for _ in range(5):
            connection.execute("SELECT name FROM artikel WHERE id <= 3 AND name <> 'secret-value'")
        connection.execute(f"SET ROLE {MONITOR}")
        for _ in range(2):
            connection.execute("SELECT name FROM artikel WHERE id <= 4 AND name <> 'other-secret'")
        connection.execute("RESET ROLE")
        connection.execute("CREATE ROLE test_secret PASSWORD 'secret-password'")
        connection.execute("DROP ROLE test_secret")
    ((queryid, seconds),) = postgres.execute(
        "SELECT queryid, sum(total_exec_time) / 1000 FROM pg_stat_statements "
        "WHERE query LIKE 'SELECT name FROM artikel%' GROUP BY queryid",
        name_of(statements_database),
    )
    answer = exporter.scrape()
    labels = {"queryid": str(queryid), "datname": name_of(statements_database)}
    assert answer.value("pg_stat_statements_calls_total", **labels) == 7
    assert answer.value("pg_stat_statements_rows_total", **labels) == 5 * 3 + 2 * 4
    assert answer.value("pg_stat_statements_seconds_total", **labels) == pytest.approx(float(seconds))
    text = "SELECT name FROM artikel WHERE id <= $1 AND name <> $2"
    assert answer.value("pg_stat_statements_info", queryid=str(queryid), query=text) == 1
    with psycopg.connect(statements_database, autocommit=True) as connection:
        connection.execute("/* name: artikel_nach_id */ SELECT id, name FROM artikel WHERE id = 1")
    text = "SELECT id, name FROM artikel WHERE id = $1"
    named = "SELECT queryid FROM pg_stat_statements WHERE query LIKE '%artikel_nach_id%'"
    found = postgres.execute(named, name_of(statements_database))
    info = {"queryid": str(found[0][0]), "query": text, "query_name": "artikel_nach_id"}
    assert exporter.scrape().value("pg_stat_statements_info", **info) == 1
    assert "secret" not in answer.body
    assert "CREATE" not in answer.body


def test_statements_are_bounded_and_texts_can_be_off(
    statements_database: str, monitor: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    """`top` keeps the costliest by time and says that there were more; no text leaves the server when off."""
    settings = {"statements": {"top": 2, "query_text": False}}
    with psycopg.connect(statements_database, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
        for size in (400_000, 800_000):
            columns = sql.SQL(", ").join([sql.SQL("count(*)")] * (size // 400_000))
            connection.execute(sql.SQL("SELECT {} FROM generate_series(1, {})").format(columns, size))
    config = write_config(tmp_path, make_conninfo(statements_database, user=monitor), collectors=settings)
    with running(config) as exporter:
        answer = exporter.scrape()
    rows = postgres.execute(
        "SELECT queryid FROM pg_stat_statements WHERE query LIKE '%generate_series%' AND calls = 1",
        name_of(statements_database),
    )
    shown = answer.labelled("pg_stat_statements_calls_total", "queryid")
    assert set(shown) == {str(queryid) for (queryid,) in rows}
    assert len(shown) == 2
    assert answer.value("pg_scrape_collector_truncated", collector="statements") == 1
    assert "pg_stat_statements_info" not in answer.body


@pytest.mark.parametrize("case", [("1.7", 0, False), ("1.8", 1, False), ("1.9", 1, True)], ids=lambda case: case[0])
def test_old_extension_versions_are_served_or_skipped_with_advice(
    database: str, monitor: str, tmp_path: Path, case: tuple[str, int, bool]
) -> None:
    """pg_upgrade leaves the extension as old as it was; the same names come from what it has."""
    version, served, deallocations = case
    with psycopg.connect(database, autocommit=True) as connection:
        try:
            connection.execute(sql.SQL("CREATE EXTENSION pg_stat_statements VERSION {}").format(version))
        except psycopg.errors.InvalidParameterValue as error:
            pytest.skip(f"this server does not offer it: {error}")
    config = write_config(tmp_path, make_conninfo(database, user=monitor), collectors=only(*COLLECTORS))
    with running(config) as exporter:
        answer = exporter.scrape()
    assert answer.value("pg_scrape_collector_success", collector="statements") == served
    assert bool(answer.labelled("pg_stat_statements_calls_total", "queryid")) == bool(served)
    assert (answer.value("pg_stat_statements_deallocations_total") is not None) == deallocations
    if not served:
        assert answer.value("pg_scrape_collector_skipped", collector="statements", reason="version") == 1
        said = subprocess.run(command("check", config), env=environment(), capture_output=True, text=True, check=True)
        assert "run ALTER EXTENSION pg_stat_statements UPDATE" in said.stdout


def test_without_privilege_or_extension_collectors_are_skipped(
    database: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    """A silent 0 would be a lie: what the role may not see is skipped, the rest goes on, and check names the cure."""
    postgres.execute("CREATE ROLE test_pgstat_nobody LOGIN")
    try:
        config = write_config(
            tmp_path, make_conninfo(database, user="test_pgstat_nobody"), collectors=only(*COLLECTORS)
        )
        with running(config) as exporter:
            answer = exporter.scrape()
        said = subprocess.run(command("check", config), env=environment(), capture_output=True, text=True, check=True)
    finally:
        postgres.execute("DROP ROLE test_pgstat_nobody")
    skipped = {dict(key[1])["collector"]: dict(key[1])["reason"] for key in answer if key[0].endswith("_skipped")}
    assert skipped == {
        "activity": "privilege",
        "archiver": "privilege",
        "locks": "privilege",
        "statements": "extension",
    }
    assert answer.success() == {"server": 1, "database": 1} | dict.fromkeys(skipped, 0)
    assert "GRANT pg_read_all_stats TO it" in said.stdout
    assert "CREATE EXTENSION pg_stat_statements" in said.stdout


def test_declared_columns_are_what_the_server_returns(statements_database: str) -> None:
    """Every SQL file that fits this server runs as it stands and returns exactly the declared columns."""
    with psycopg.connect(statements_database, autocommit=True) as connection:
        major = connection.info.server_version // 10000
        names = {
            (row[0], row[1])
            for row in connection.execute("SELECT table_name, column_name FROM information_schema.columns")
        }
        columns = frozenset(f"{table}.{column}" for table, column in names)
        for collector in content.load().values():
            for query in collector.declaration.queries:
                if variant := query.choose(major, columns):
                    cursor = connection.execute(collector.sql[variant.file].encode())
                    assert {one.name for one in cursor.description or ()} == query.columns(variant), variant.file


def test_answers_follow_the_conventions(exporter: RunningExporter) -> None:
    """Every sample of a counter ends in _total and every family has a help text."""
    answer: Answer = exporter.scrape()
    types = dict(line.split()[2:4] for line in answer.body.splitlines() if line.startswith("# TYPE"))
    assert all(name.endswith("_total") for name, kind in types.items() if kind == "counter")
    helps = {
        line.split()[2] for line in answer.body.splitlines() if line.startswith("# HELP") and len(line.split()) > 3
    }
    assert helps == set(types)
