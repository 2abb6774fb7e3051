"""pgstat_exporter under a real Prometheus while its database has trouble: no gap that was not the database's."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import Installation, PostgresServer, wait_until
from tests.integration.pgstat_exporter_process import (
    MONITOR,
    RunningExporter,
    running,
    sessions,
    shop_server,
    write_config,
)
from tests.integration.postgres_versions import CONFIGURATION, replica_of
from tests.integration.prometheus_process import Story, Watch

_SKIPPED = 'pg_scrape_collector_skipped{reason!="pending"}'
# One for scrapes, one for the background.
MOST_SESSIONS = 2
# What the tests themselves run must not push statements out.
SETTINGS = {"statements": {"top": 1000}}
PATIENT = SETTINGS | {name: {"lock_timeout": "20s", "statement_timeout": "20s"} for name in ("activity", "database")}


@pytest.fixture(scope="module")
def server(local_postgresql: Installation) -> Iterator[PostgresServer]:
    """A server of this module's own, which it may fill, freeze and kill; it admits twelve sessions of users."""
    configuration = f"{CONFIGURATION}max_connections = 15\nsuperuser_reserved_connections = 3\n"
    with shop_server(local_postgresql, configuration) as one:
        yield one


@pytest.fixture
def exporter(server: PostgresServer, tmp_path: Path) -> Iterator[RunningExporter]:
    """An exporter on the shop."""
    with running(write_config(tmp_path, server.dsn("shop", MONITOR), collectors=SETTINGS)) as one:
        yield one


def postmaster(server: PostgresServer) -> int:
    """Return the process id of the server's first process."""
    return int((server.data / "postmaster.pid").read_text().splitlines()[0])


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def crossed(story: Story, name: str, value: float) -> bool:
    """Return whether a series had a value in every scrape that lay within a fault, and there was one."""
    values, during = story.one(name), story.during()
    return bool(during) and {values.get(moment) for moment in during} == {value}


def test_a_table_held_and_waited_for(server: PostgresServer, exporter: RunningExporter, watch: Watch) -> None:
    """Somebody holds a table under ACCESS EXCLUSIVE, somebody else waits for it: nothing is missing, and it shows."""
    with watch(exporter.port) as story, psycopg.connect(server.dsn("shop")) as holder, ThreadPoolExecutor() as pool:
        holder.execute("LOCK TABLE sold IN ACCESS EXCLUSIVE MODE")
        story.wait()
        waiting = pool.submit(server.execute, "ALTER TABLE sold SET (fillfactor = 90)", "shop")
        wait_until(lambda: holder.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall() != [], "it waits")
        story.wait()
        holder.rollback()
        waiting.result()
        story.wait()
        story.assert_unbroken()
        assert sorted(set(story.one("pg_locks_waiting").values())) == [0, 1]
        held = story.one('pg_locks_granted{mode="AccessExclusiveLock"}')
        assert max(held.values()) >= 1


@contextlib.contextmanager
def _role_full(server: PostgresServer) -> Iterator[None]:
    server.execute(f"ALTER ROLE {MONITOR} CONNECTION LIMIT 1")
    try:
        yield
    finally:
        server.execute(f"ALTER ROLE {MONITOR} CONNECTION LIMIT -1")


@contextlib.contextmanager
def _server_full(server: PostgresServer) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(psycopg.connect(server.dsn("shop", "clerk")))
        yield


@pytest.mark.parametrize("full", [_role_full, _server_full], ids=["of the role", "of the server"])
def test_connection_limit_reached(
    full: Callable[[PostgresServer], AbstractContextManager[None]],
    server: PostgresServer,
    exporter: RunningExporter,
    watch: Watch,
) -> None:
    """Who has a session keeps it; without one the database counts as down, until there is a place again."""
    with watch(exporter.port) as story:
        with full(server):
            story.wait()
            story.assert_unbroken()
            with story.fault():
                with _place_taken(server):
                    story.wait()
                wait_until(lambda: exporter.scrape().value("pg_up") == 1, "the exporter has a place again")
        story.wait()
        assert crossed(story, "pg_up", 0)
        story.assert_unbroken()


@contextlib.contextmanager
def _place_taken(server: PostgresServer) -> Iterator[None]:
    """End the exporter's sessions, and take their places before they come back."""
    with contextlib.ExitStack() as taken:

        def take() -> bool:
            for pid in sessions(server):
                server.execute(f"SELECT pg_terminate_backend({pid})")
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(psycopg.connect(server.dsn("shop", MONITOR)))
            return not sessions(server)

        wait_until(take, "the places are taken")
        yield


def test_a_frozen_server(server: PostgresServer, exporter: RunningExporter, watch: Watch) -> None:
    """All its processes are stopped: each scrape says so in time; after it the data are whole at once."""
    with watch(exporter.port) as story:
        with story.fault():
            frozen = family(postmaster(server))
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            try:
                story.wait()
            finally:
                for pid in frozen:
                    os.kill(pid, signal.SIGCONT)
        story.wait()
        assert crossed(story, "pg_up", 0)
        story.assert_unbroken()
    wait_until(lambda: len(sessions(server)) <= MOST_SESSIONS, "what the exporter left behind has ended")


def test_started_before_the_server(server: PostgresServer, watch: Watch, tmp_path: Path) -> None:
    """The first scrape after the server's start is whole, what is read in the background included."""
    config = write_config(tmp_path, server.dsn("shop", MONITOR), collectors=SETTINGS)
    server.stop("fast")
    with running(config) as exporter, watch(exporter.port, seconds=5) as story:
        with story.fault():
            story.wait(1)
            server.start()
        story.wait(3)
        assert crossed(story, "pg_up", 0)
        skipped = {(dict(one)["collector"], dict(one).get("datname", "")) for one in story.kept(_SKIPPED)}
        ((_, back),) = story.faults
        first, *later = (moment for moment in sorted(story.one("up")) if moment > back)
        told = {key: values for key, values in story.success().items() if key not in skipped}
        whole = {at: {key for key, values in told.items() if values.get(at) == 1} for at in (first, *later)}
        assert len(whole[first]) > 20
        there = {key for key, values in told.items() if later[-1] in values}
        assert all(one == there for one in whole.values()), whole


def _immediate(server: PostgresServer, _: int) -> None:
    server.stop("immediate")
    server.start()


def _kill_backend(server: PostgresServer, pid: int) -> None:
    """All sessions end, and the server recovers by itself, as after the kernel's OOM killer."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _answers(server), "the server has recovered")


def _kill_all(server: PostgresServer, _: int) -> None:
    killed = family(postmaster(server))
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(_lives, killed)), "all of them are dead")
    # Where nobody reaps them, they would pass for a server that runs.
    (server.data / "postmaster.pid").unlink()
    server.start()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _answers(server: PostgresServer) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        return bool(server.execute("SELECT 1"))
    return False


@pytest.mark.parametrize(
    "kill", [_immediate, _kill_backend, _kill_all], ids=["immediate shutdown", "kill -9 of the session", "kill -9"]
)
def test_killed_in_mid_scrape(
    kill: Callable[[PostgresServer, int], None], server: PostgresServer, watch: Watch, tmp_path: Path
) -> None:
    """The scrape that it hits is answered, the first after the server's return is whole."""
    config = write_config(tmp_path, server.dsn("shop", MONITOR), collectors=PATIENT)
    with running(config) as exporter, watch(exporter.port) as story:
        with story.fault(), contextlib.suppress(psycopg.OperationalError), psycopg.connect(server.dsn()) as holder:
            holder.execute("LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
            waiting = (
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgstat_exporter' "
                "AND wait_event_type = 'Lock' AND query !~ 'has_database_privilege'"
            )
            wait_until(lambda: holder.execute(waiting).fetchall() != [], "a scrape waits for the lock")
            (pid,) = holder.execute(waiting).fetchone() or (0,)
            kill(server, pid)
        story.wait()
        story.assert_unbroken()
        assert exporter.process.poll() is None


def test_scrape_clients_that_go_away(server: PostgresServer, exporter: RunningExporter, watch: Watch) -> None:
    """Half a request, a whole one whose answer nobody reads, a reset: Prometheus does not notice, nothing leaks."""
    requests = [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01nonsense\r\n\r\n"]
    with watch(exporter.port) as story:
        descriptors = Path(f"/proc/{exporter.process.pid}/fd")
        wait_until(lambda: bool(sessions(server)), "the exporter is at work")
        before = len(list(descriptors.iterdir()))
        for number in range(80):
            with socket.create_connection(("127.0.0.1", exporter.port)) as client:
                # Closed with a reset instead of an orderly end, every second time.
                if number % 2:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                client.sendall(requests[number // 2 % len(requests)])
        story.wait()
        wait_until(lambda: len(list(descriptors.iterdir())) <= before + 8, "the connections are let go")
        story.assert_unbroken()
        assert len(sessions(server)) <= MOST_SESSIONS
    _, log = exporter.stop()
    assert "Traceback" not in log


def test_two_hundred_scrapes_in_parallel(server: PostgresServer, exporter: RunningExporter, watch: Watch) -> None:
    """Beside Prometheus's: every one is answered whole, and the server sees no more sessions than of one scrape."""
    # Prometheus's own default: two hundred answers at once are work for a machine, too.
    with watch(exporter.port, seconds=10) as story:
        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(lambda _: exporter.scrape(timeout=30), range(200)))
        seen = len(sessions(server))
        story.wait()
        story.assert_unbroken()
    for answer in answers:
        assert (answer.status, answer.value("pg_up")) == (200, 1.0)
        failed = {name for name, value in answer.success().items() if not value}
        assert failed <= set(answer.labelled("pg_scrape_collector_skipped", "collector"))
    assert seen <= MOST_SESSIONS


def test_a_replica_and_its_promotion(server: PostgresServer, watch: Watch, tmp_path: Path) -> None:
    """Every collector works on a standby, while it is promoted, and when it is a primary; the role shows."""
    with replica_of(server) as replica:
        config = write_config(tmp_path, replica.dsn("shop", MONITOR), collectors=SETTINGS)
        with running(config) as exporter, watch(exporter.port) as story:
            replica.execute("SELECT pg_promote()")
            story.wait()
            story.assert_unbroken()
            roles = story.one("pg_in_recovery")
        assert [roles[moment] for moment in sorted(roles)] == sorted(roles.values(), reverse=True)
        assert set(roles.values()) == {0, 1}


def test_a_replica_whose_primary_is_gone(server: PostgresServer, watch: Watch, tmp_path: Path) -> None:
    """The standby is measured on; only what its WAL receiver knew is absent until there is one again."""
    with replica_of(server) as replica:
        config = write_config(tmp_path, replica.dsn("shop", MONITOR), collectors=SETTINGS)
        with running(config) as exporter, watch(exporter.port) as story:
            server.stop("immediate")
            try:
                story.wait()
            finally:
                server.start()
            story.wait()
            story.assert_unbroken(absent=("pg_stat_wal_receiver_", "pg_recovery_upstream_"))
