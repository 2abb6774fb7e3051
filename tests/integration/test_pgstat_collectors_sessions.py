"""Server, settings, sessions, locks and the horizon of VACUUM: values made by hand on every PostgreSQL version."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_collectors import busy, major_of, reading, sample, shows, waits_for_lock
from tests.integration.postgres_versions import MAJORS, Versions

# Bytes and seconds of the units that pg_settings uses.
UNITS = {"8kB": 8192, "kB": 1024, "MB": 1024**2, "ms": 0.001, "s": 1, "min": 60}
SWITCHES = ("autovacuum", "fsync", "full_page_writes", "track_io_timing")
# Where the defaults are the same.
DIFFERENT = """
max_worker_processes = 9
max_parallel_workers = 7
max_wal_senders = 12
max_replication_slots = 13
autovacuum_max_workers = 4
"""


@pytest.fixture
def tables(any_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server with tables one, two and three."""
    names = ("one", "two", "three")
    any_postgres.execute("".join(f"CREATE TABLE {name} (id int);" for name in names))
    yield any_postgres
    for (forgotten,) in any_postgres.execute("SELECT gid FROM pg_prepared_xacts"):
        any_postgres.execute(f"ROLLBACK PREPARED '{forgotten}'")
    any_postgres.execute("".join(f"DROP TABLE {name};" for name in names))


@pytest.mark.parametrize("major", MAJORS)
def test_settings_are_those_of_the_view_in_base_units(versions: Versions, major: int, tmp_path: Path) -> None:
    """Each by pg_settings, whose figure and unit are turned into bytes and seconds here; -1 is no limit."""
    with versions.server(major, DIFFERENT) as server, reading(server, tmp_path, "settings", "server") as exporter:
        rows = server.execute("SELECT name, setting, unit FROM pg_settings")
        wait_until(lambda: exporter.scrape().success().get("settings") == 1, "settings are read")
        answer = exporter.scrape()
        # One after the other: only so do they differ.
        for on in SWITCHES:
            for name in SWITCHES:
                server.execute(f"ALTER SYSTEM SET {name} = {name == on}")
            server.execute("SELECT pg_reload_conf()")
            shows(exporter, {f"pg_settings_{name}": float(name == on) for name in SWITCHES})
    settings = {name: (setting, unit) for name, setting, unit in rows}
    switches = {"on": 1.0, "off": 0.0}
    shown = {key[0].removeprefix("pg_settings_"): value for key, value in answer.items() if "pg_settings" in key[0]}
    shown.pop("pending_restart")
    assert len(shown) == (26 if major >= 16 else 25)
    figures = [value for name, value in shown.items() if name not in {*SWITCHES, "data_checksums"}]
    assert len(set(figures)) == len(figures)
    for metric, value in shown.items():
        name = next(name for name in (metric, metric.rpartition("_")[0]) if name in settings)
        setting, unit = settings[name]
        assert value == pytest.approx(switches.get(setting) if unit is None and setting in switches
                                      else float(setting) * UNITS.get(unit or "", 1)), metric  # fmt: skip
    assert settings["max_slot_wal_keep_size"][0] == "-1"
    assert "max_slot_wal_keep_size_bytes" not in shown


def test_changes_that_wait_for_a_restart_are_counted(any_postgres: PostgresServer, tmp_path: Path) -> None:
    """Also one of a setting that only superusers see."""
    changes = {"max_connections": "123", "shared_preload_libraries": "'pg_stat_statements, auto_explain'"}
    with reading(any_postgres, tmp_path, "settings", "server") as exporter:
        shows(exporter, {"pg_settings_pending_restart": 0})
        try:
            for name, value in changes.items():
                any_postgres.execute(f"ALTER SYSTEM SET {name} = {value}")
            before = time.time()
            any_postgres.execute("SELECT pg_reload_conf()")
            answer = shows(exporter, {"pg_settings_pending_restart": 2})
            loaded = answer.value("pg_configuration_load_timestamp_seconds")
            assert loaded is not None
            assert before - 1 <= loaded <= time.time()
        finally:
            for name in changes:
                any_postgres.execute(f"ALTER SYSTEM RESET {name}")
            any_postgres.execute("SELECT pg_reload_conf()")
        shows(exporter, {"pg_settings_pending_restart": 0})


def test_reserved_connections_since_16(any_postgres: PostgresServer, tmp_path: Path) -> None:
    """Absent, not 0, where the server has no such setting."""
    with reading(any_postgres, tmp_path, "server") as exporter:
        shown = exporter.scrape().value("pg_settings_reserved_connections")
    assert shown == (0 if major_of(any_postgres) >= 16 else None)


def test_processes_by_type_and_what_they_wait_for(tables: PostgresServer, tmp_path: Path) -> None:
    """Sessions made by hand; all types together are the children that the kernel counts."""
    with reading(tables, tmp_path, "activity") as exporter, contextlib.ExitStack() as stack:
        holder = stack.enter_context(psycopg.connect(tables.dsn()))
        holder.execute("LOCK TABLE one")
        waiters = [stack.enter_context(busy(tables, "SELECT FROM one")) for _ in range(2)]
        stack.enter_context(busy(tables, "SELECT pg_sleep(600)"))
        wait_until(lambda: all(waits_for_lock(tables, pid) for pid in waiters), "two sessions wait")
        answer = shows(exporter, {
            # The exporter's own session is the fifth.
            'pg_stat_activity_backends{backend_type="client backend"}': 5,
            'pg_stat_activity_backends{backend_type="walsender"}': 0,
            'pg_stat_activity_waiting_backends{wait_event_type="Lock",wait_event="relation"}': 2,
            'pg_stat_activity_waiting_backends{wait_event_type="Timeout",wait_event="PgSleep"}': 1,
            'pg_stat_activity_waiting_backends{wait_event_type="Client",wait_event="ClientRead"}': None,
            "pg_stat_activity_wraparound_vacuums": 0,
        })  # fmt: skip
        assert len(answer.labelled("pg_stat_activity_backends", "backend_type")) == 6
        postmaster = (tables.data / "postmaster.pid").read_text().split()[0]
        kernel = Path(f"/proc/{postmaster}/task/{postmaster}/children")

        def all_counted() -> bool:
            children = len(kernel.read_text().split())
            counted = exporter.scrape().labelled("pg_stat_activity_backends", "backend_type")
            return sum(counted.values()) == children

        wait_until(all_counted, "the exporter counts as many processes as the kernel")


@pytest.mark.parametrize("major", MAJORS)
def test_autovacuum_against_wraparound_is_told_from_others(versions: Versions, major: int, tmp_path: Path) -> None:
    """A table that is kept from being frozen while a hundred thousand transaction ids go by."""
    configuration = "autovacuum_freeze_max_age = 100000\nautovacuum_naptime = 1s\nautovacuum_max_workers = 1\n"
    with versions.server(major, configuration) as server, reading(server, tmp_path, "activity") as exporter:
        server.execute("CREATE TABLE aged (id int)")
        with psycopg.connect(server.dsn()) as holder:
            holder.execute("LOCK TABLE aged IN SHARE UPDATE EXCLUSIVE MODE")
            server.execute("""DO $$ BEGIN
                FOR n IN 1 .. 110000 LOOP
                    BEGIN INSERT INTO aged VALUES (n); EXCEPTION WHEN division_by_zero THEN NULL; END;
                END LOOP;
            END $$""")
            shows(exporter, {"pg_stat_activity_wraparound_vacuums": 1}, timeout=60)
            assert sample(exporter.scrape(), 'pg_stat_activity_backends{backend_type="autovacuum worker"}') == 1


def test_blocking_chain(tables: PostgresServer, tmp_path: Path) -> None:
    """One root blocks three sessions, two of them through another; a prepared transaction blocks one."""
    worst = "pg_locks_worst_root_blocked_sessions"
    tables.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    with reading(tables, tmp_path, "locks") as exporter, contextlib.ExitStack() as stack:
        shows(exporter, {"pg_locks_blocked_sessions": 0, "pg_locks_blocking_roots": 0, "pg_locks_waiting": 0})
        with psycopg.connect(tables.dsn()) as forgotten:
            forgotten.execute("LOCK TABLE three")
            forgotten.execute("PREPARE TRANSACTION 'test_forgotten'")
        root = stack.enter_context(psycopg.connect(tables.dsn(), application_name="root of evil"))
        root.execute("LOCK TABLE one")
        started = root.execute("SELECT extract(epoch FROM now())::float8 AS began").fetchone()
        middle = stack.enter_context(busy(tables, "LOCK TABLE one", "postgres", "BEGIN", "LOCK TABLE two"))
        leaves = [stack.enter_context(busy(tables, f"SELECT FROM {name}")) for name in ("two", "two", "three")]
        wait_until(lambda: all(waits_for_lock(tables, pid) for pid in (middle, *leaves)), "four sessions wait")
        ((queryid,),) = tables.execute("SELECT queryid FROM pg_stat_statements WHERE query LIKE '%AS began'")
        answer = shows(exporter, {"pg_locks_blocked_sessions": 4, "pg_locks_blocking_roots": 2, "pg_locks_waiting": 4})
        assert {key: value for key, value in answer.items() if key[0] == worst} == {
            (worst, frozenset({
                ("datname", "postgres"), ("application_name", "root of evil"), ("state", "idle in transaction"),
                ("wait_event_type", "Client"), ("queryid", str(queryid)),
            })): 3
        }  # fmt: skip
        assert started is not None
        assert answer.value("pg_locks_worst_root_transaction_start_timestamp_seconds") == pytest.approx(started[0])
        assert sample(answer, "pg_locks_table_entries") == entries(tables)
        root.rollback()
        tables.execute(f"SELECT pg_terminate_backend({middle}, 10000)")
        answer = shows(exporter, {"pg_locks_blocked_sessions": 1, "pg_locks_blocking_roots": 1, "pg_locks_waiting": 1})
        assert answer.labelled(worst, "state") == {"prepared transaction": 1}
        tables.execute("ROLLBACK PREPARED 'test_forgotten'")
        answer = shows(exporter, {"pg_locks_blocked_sessions": 0, "pg_locks_blocking_roots": 0, "pg_locks_waiting": 0})
        assert not answer.labelled(worst, "state")


def test_locks_of_a_prepared_transaction_are_held(tables: PostgresServer, tmp_path: Path) -> None:
    """No process has them any more, and nobody else gets them."""
    held = 'pg_locks_granted{mode="AccessExclusiveLock"}'
    with reading(tables, tmp_path, "locks") as exporter:
        shows(exporter, {held: 0})
        with psycopg.connect(tables.dsn()) as forgotten:
            forgotten.execute("LOCK TABLE one IN ACCESS EXCLUSIVE MODE")
            forgotten.execute("PREPARE TRANSACTION 'test_locks'")
        shows(exporter, {held: 1})
        tables.execute("ROLLBACK PREPARED 'test_locks'")
        shows(exporter, {held: 0})


def entries(server: PostgresServer) -> int:
    """Return how many objects are in the shared lock table, counted here."""
    rows = server.execute("SELECT to_jsonb(l) FROM pg_locks AS l WHERE NOT fastpath AND mode <> 'SIReadLock'")
    holders = ("virtualtransaction", "pid", "mode", "granted", "fastpath", "waitstart")
    return len({tuple(value for key, value in row.items() if key not in holders) for (row,) in rows})


def test_lock_table_capacity(any_postgres: PostgresServer, tmp_path: Path) -> None:
    """By the manual's formula."""
    settings = dict(
        any_postgres.execute(
            "SELECT name, setting::float8 FROM pg_settings WHERE name LIKE 'max%' AND vartype = 'integer'"
        )
    )
    slots = settings["max_connections"] + settings["max_prepared_transactions"]
    with reading(any_postgres, tmp_path, "locks") as exporter:
        shows(exporter, {"pg_locks_table_capacity": settings["max_locks_per_transaction"] * slots})


def next_xid(server: PostgresServer) -> int:
    """Return the transaction id that the next transaction gets, after this one that took one."""
    return int(server.execute("SELECT pg_current_xact_id()::text")[0][0]) + 1


def horizon_is(server: PostgresServer, exporter_age: float | None, oldest: int) -> bool:
    """Return whether an age is what separates the oldest id from the next one, which autovacuum may take meanwhile."""
    return exporter_age is not None and 0 <= next_xid(server) - 1 - oldest - exporter_age <= 2


def test_horizon_by_holder(any_postgres: PostgresServer, tmp_path: Path) -> None:
    """Transaction ids are used up while a snapshot, a writer, a prepared transaction and a slot hold the horizon."""
    with reading(any_postgres, tmp_path, "horizon") as exporter:

        def age(holder: str) -> float | None:
            return sample(exporter.scrape(), f'pg_xmin_horizon_age_xids{{holder="{holder}"}}')

        def grows_with(holder: str, oldest: int) -> None:
            for _ in range(50):
                next_xid(any_postgres)
            assert horizon_is(any_postgres, age(holder), oldest)

        holders = ("session", "standby", "prepared_transaction", "replication_slot", "replication_slot_catalog")
        shows(exporter, {f'pg_xmin_horizon_age_xids{{holder="{name}"}}': 0 for name in holders})
        with psycopg.connect(any_postgres.dsn()) as reader:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            row = reader.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
            assert row
            grows_with("session", int(row[0]))
        with psycopg.connect(any_postgres.dsn()) as writer:
            row = writer.execute("SELECT pg_current_xact_id()::text").fetchone()
            assert row
            grows_with("session", int(row[0]))
            before = time.time()
            writer.execute("PREPARE TRANSACTION 'test_prepared'")
        grows_with("prepared_transaction", int(row[0]))
        answer = shows(exporter, {"pg_prepared_transactions": 1, 'pg_xmin_horizon_age_xids{holder="session"}': 0})
        prepared = answer.value("pg_prepared_transactions_oldest_timestamp_seconds")
        assert prepared is not None
        assert before <= prepared <= time.time()
        any_postgres.execute("ROLLBACK PREPARED 'test_prepared'")
        shows(exporter, {"pg_prepared_transactions": 0, "pg_prepared_transactions_oldest_timestamp_seconds": None})
        oldest = next_xid(any_postgres)
        any_postgres.execute("SELECT pg_create_logical_replication_slot('test_horizon', 'pgoutput')")
        try:
            grows_with("replication_slot_catalog", oldest)
        finally:
            any_postgres.execute("SELECT pg_drop_replication_slot('test_horizon')")
        low = next_xid(any_postgres)
        assigned = sample(exporter.scrape(), "pg_xids_assigned_total")
        assert assigned is not None
        assert low <= assigned <= next_xid(any_postgres)
