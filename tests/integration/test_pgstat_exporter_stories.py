"""pgstat_exporter beside a database in trouble: down, locked, frozen, restarted; and many scrapers at once."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.integration.conftest import PostgresServer, free_port, wait_until
from tests.integration.pgstat_exporter_process import (
    COLLECTORS,
    MONITOR,
    RunningExporter,
    command,
    environment,
    monitor_on,
    only,
    running,
    sessions,
    write_config,
)

ALL = dict.fromkeys(COLLECTORS, 1.0)
NONE = dict.fromkeys(COLLECTORS, 0.0)


@pytest.fixture
def monitored(postgres: PostgresServer, database: str) -> str:
    """A fresh database with pg_stat_statements; its connection string for a role with pg_monitor only."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
    return make_conninfo(database, user=monitor_on(postgres))


@pytest.fixture
def exporter(monitored: str, tmp_path: Path) -> Iterator[RunningExporter]:
    """An exporter on the fresh database that has been scraped once."""
    with running(write_config(tmp_path, monitored, collectors=only(*COLLECTORS))) as one:
        assert one.scrape().success() == ALL
        yield one


def test_database_goes_down_and_comes_back(exporter: RunningExporter, postgres: PostgresServer) -> None:
    """Down is an answer: 200, pg_up 0, success 0 for all and no stale series; nobody has to restart anything."""
    postgres.stop()
    try:
        down = [exporter.scrape() for _ in range(2)]
    finally:
        postgres.start()
    for answer in down:
        assert (answer.status, answer.value("pg_up"), answer.success()) == (200, 0.0, NONE)
        assert "pg_stat_" not in answer.body
        assert answer.seconds < 2
    up = exporter.scrape()
    assert (up.value("pg_up"), up.success()) == (1.0, ALL)
    _, log = exporter.stop()
    assert log.count("level=error") == 1, "one line when it begins, not one per scrape"
    assert "well again" in log


def test_a_restart_between_two_scrapes_costs_no_scrape(exporter: RunningExporter, postgres: PostgresServer) -> None:
    """The dead session is replaced within the scrape that finds it dead."""
    postgres.stop()
    postgres.start()
    answer = exporter.scrape()
    assert (answer.value("pg_up"), answer.success()) == (1.0, ALL)
    assert len(sessions(postgres)) == 1


def test_the_database_may_come_after_the_exporter(monitored: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """At boot the order does not matter."""
    postgres.stop()
    try:
        with running(write_config(tmp_path, monitored, collectors=only(*COLLECTORS))) as exporter:
            assert exporter.scrape().value("pg_up") == 0
            postgres.start()
            assert exporter.scrape().success() == ALL
    finally:
        if not (postgres.directory / "data" / "postmaster.pid").exists():
            postgres.start()


@pytest.mark.parametrize("connected", [True, False], ids=["session open", "no session yet"])
def test_locked_catalog(monitored: str, database: str, connected: bool, tmp_path: Path) -> None:
    """pg_class under ACCESS EXCLUSIVE: every scrape answers in time, and the first after it is whole."""
    with (
        running(write_config(tmp_path, monitored, collectors=only(*COLLECTORS))) as exporter,
        psycopg.connect(database) as holder,
    ):
        if connected:
            assert exporter.scrape().success() == ALL
        holder.execute("LOCK TABLE pg_class IN ACCESS EXCLUSIVE MODE")
        locked = [exporter.scrape(timeout=4, header=3) for _ in range(2)]
        holder.rollback()
        free = exporter.scrape()
        assert (free.value("pg_up"), free.success()) == (1.0, ALL)
    for answer in locked:
        assert answer.status == 200
        assert answer.seconds < 3
        assert set(answer.success()) == set(COLLECTORS)
        assert 0.0 in answer.success().values()
        assert answer.value("pg_up") == float(connected or any(answer.success().values()))


def calls(database: str, of: str) -> int:
    """Return how often a collector's statement was run, by the server's own count."""
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements JOIN pg_roles r ON r.oid = userid "
            "WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND r.rolname = %s AND query LIKE %s",
            (MONITOR, f"%{of}%"),
        ).fetchone()
    return int(found[0]) if found else 0


def test_concurrent_scrapers_share_one_run_and_one_session(
    monitored: str, database: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    """Twenty scrapers meet while a lock holds the run up: one run serves them all."""
    patient = only(*COLLECTORS, lock_timeout="20s", statement_timeout="20s")
    config = write_config(tmp_path, monitored, collectors=patient, scrape_timeout="30s")
    with running(config) as exporter, psycopg.connect(database) as holder:
        assert exporter.scrape().success() == ALL
        before = calls(database, "pg_postmaster_start_time")
        holder.execute("LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(20) as pool:
            answers = [pool.submit(exporter.scrape, 30) for _ in range(20)]
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
            wait_until(lambda: bool(holder.execute(waiting).fetchall()), "the run waits for the lock")
            wait_until(lambda: connections(exporter) >= 20, "all scrapers are connected")
            holder.rollback()
            assert [answer.result().success() for answer in answers] == [ALL] * 20
        assert calls(database, "pg_postmaster_start_time") - before == 1
        assert len(sessions(postgres)) == 1


def connections(exporter: RunningExporter) -> int:
    """Return how many scrapers the exporter has accepted, by the kernel's table (state 01: established)."""
    lines = Path(f"/proc/{exporter.process.pid}/net/tcp").read_text().splitlines()[1:]
    local = f":{exporter.port:04X}"
    return sum(fields[1].endswith(local) and fields[3] == "01" for fields in map(str.split, lines))


def test_the_scrapers_deadline_is_kept(monitored: str, database: str, tmp_path: Path) -> None:
    """Whatever the collectors are allowed, the answer is there before Prometheus gives up, with what is ready."""
    patient = only(*COLLECTORS, lock_timeout="20s", statement_timeout="20s")
    config = write_config(tmp_path, monitored, collectors=patient)
    with running(config) as exporter, psycopg.connect(database) as holder:
        assert exporter.scrape().success() == ALL
        # The locks collector comes before statements, which reads pg_database.
        holder.execute("LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
        answer = exporter.scrape(timeout=5, header=2)
        holder.rollback()
        assert answer.seconds < 2
        assert answer.value("pg_up") == 1
        assert 0.0 in answer.success().values()
        assert exporter.scrape().success() == ALL


def test_a_frozen_server_process_is_left_in_time(exporter: RunningExporter, postgres: PostgresServer) -> None:
    """A process that is stopped reacts to no timeout of its own; the same scrape has a new session."""
    (pid,) = sessions(postgres)
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = exporter.scrape(timeout=5, header=2)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (answer.status, answer.value("pg_up"), answer.success()) == (200, 1.0, ALL)
    assert answer.seconds < 2
    wait_until(lambda: len(sessions(postgres)) == 1, "the old session ends when it thaws")


def test_a_frozen_server_that_accepts_no_session(exporter: RunningExporter, postgres: PostgresServer) -> None:
    """The kernel takes the connection, nobody answers on it: the deadline holds, and nothing piles up."""
    postmaster = int((postgres.directory / "data" / "postmaster.pid").read_text().splitlines()[0])
    (pid,) = sessions(postgres)
    os.kill(postmaster, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGTERM)
        frozen = [exporter.scrape(timeout=5, header=2) for _ in range(2)]
    finally:
        os.kill(postmaster, signal.SIGCONT)
    for answer in frozen:
        assert (answer.status, answer.value("pg_up"), answer.success()) == (200, 0.0, NONE)
        assert answer.seconds < 2
    assert exporter.scrape().success() == ALL
    wait_until(lambda: len(sessions(postgres)) == 1, "one session remains")


def test_a_session_killed_in_mid_scrape_harms_that_scrape_only(
    monitored: str, database: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    """What was delivered before stays delivered."""
    patient = only(*COLLECTORS, lock_timeout="20s", statement_timeout="20s")
    with running(write_config(tmp_path, monitored, collectors=patient)) as exporter:
        assert exporter.scrape().success() == ALL
        with psycopg.connect(database) as holder, ThreadPoolExecutor() as pool:
            holder.execute("LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
            scrape = pool.submit(exporter.scrape)
            waiting = "SELECT pid FROM pg_locks WHERE NOT granted"
            wait_until(lambda: bool(holder.execute(waiting).fetchall()), "the run waits for the lock")
            holder.execute(f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS w")  # noqa: S608
            answer = scrape.result()
        assert answer.value("pg_up") == 1
        assert 0.0 in answer.success().values()
        assert exporter.scrape().success() == ALL
        assert len(sessions(postgres)) == 1


def test_sigterm_ends_cleanly_in_mid_scrape(
    monitored: str, database: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    """Exit status 0 within seconds, no traceback, and no session left on the server."""
    patient = only(*COLLECTORS, lock_timeout="20s", statement_timeout="20s")
    with running(write_config(tmp_path, monitored, collectors=patient)) as exporter:
        assert exporter.scrape().success() == ALL
        with psycopg.connect(database) as holder, ThreadPoolExecutor() as pool:
            holder.execute("LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
            scrape = pool.submit(exporter.scrape)
            waiting = "SELECT pid FROM pg_locks WHERE NOT granted"
            wait_until(lambda: bool(holder.execute(waiting).fetchall()), "the run waits for the lock")
            status, log = exporter.stop()
            holder.rollback()
            scrape.exception()
    assert status == 0
    assert "msg=stopped" in log
    assert "Traceback" not in log
    wait_until(lambda: not sessions(postgres), "the session ends")


def test_a_port_in_use_is_said_plainly(monitored: str, tmp_path: Path) -> None:
    """The error names address and port."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        config = write_config(tmp_path, monitored, collectors=only(*COLLECTORS), port=port)
        run = subprocess.run(command("serve", config), env=environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in run.stderr


def test_a_role_with_what_grants_prints_measures_everything(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    """On a database that lets nobody in; before, statements and states are hidden from it."""
    postgres.execute("CREATE ROLE test_granted LOGIN")
    name = str(conninfo_to_dict(database)["dbname"])
    try:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA tools; CREATE EXTENSION pg_stat_statements SCHEMA tools")
        config = write_config(tmp_path, make_conninfo(database, user="test_granted"), collectors=only(*COLLECTORS))
        with running(config) as exporter:
            before = exporter.scrape()
            skipped = before.labelled("pg_scrape_collector_skipped", "collector")
            assert (set(skipped), before.value("pg_up")) == ({"activity", "archiver", "locks", "statements"}, 1.0)
        postgres.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        printed = subprocess.run(
            command("grants", config, "--schema", "tools"),
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        postgres.execute(printed.stdout, name)
        with running(config) as exporter:
            assert exporter.scrape().success() == ALL
    finally:
        postgres.execute("DROP OWNED BY test_granted", name)
        postgres.execute("DROP ROLE test_granted")


def test_check_tells_why(monitored: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """Per collector ok with its series, 0; an unreachable database or a missing password file, 1 and the reason."""
    config = write_config(tmp_path, monitored, collectors=only(*COLLECTORS))
    run = subprocess.run(command("check", config), env=environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    for name in ("database", *COLLECTORS):
        assert f"\n{name:<20} ok: " in f"\n{run.stdout}"
    closed = write_config(tmp_path, f"host=127.0.0.1 port={free_port()} dbname=none")
    missing = write_config(tmp_path, monitored, collectors=only(*COLLECTORS), password_file=str(tmp_path / "missing"))
    for config, reason in ((closed, "Connection refused"), (missing, "No such file")):
        run = subprocess.run(command("check", config), env=environment(), capture_output=True, text=True, check=False)
        assert run.returncode == 1
        assert reason in run.stdout
    assert not sessions(postgres)
