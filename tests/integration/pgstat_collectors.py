"""Collectors of a real exporter beside a real server, read one topic at a time."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstat_exporter import content
from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_exporter_process import (
    MONITOR,
    Answer,
    RunningExporter,
    monitor_on,
    running,
    write_config,
)

Wanted = Mapping[str, float | None]
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def major_of(server: PostgresServer) -> int:
    """Return the server's major version, from the file that initdb wrote."""
    return int((server.data / "PG_VERSION").read_text())


@contextlib.contextmanager
def reading(
    server: PostgresServer, folder: Path, *collectors: str, user: str = MONITOR, database: str = "postgres"
) -> Iterator[RunningExporter]:
    """An exporter with these collectors only, by default as a role with pg_monitor and nothing else."""
    if user == MONITOR:
        monitor_on(server)
    off = {name: {"enabled": False} for name in content.load() if name not in collectors}
    # What is refreshed in the background is refreshed soon.
    slow = {name: {"every": "1s"} for name in collectors if content.load()[name].declaration.every}
    with running(write_config(folder, server.dsn(database, user), collectors=off | slow)) as exporter:
        yield exporter


def sample(answer: Answer, series: str) -> float | None:
    """Return the value of a series written as Prometheus writes it, or None when it is absent."""
    found = _SAMPLE.fullmatch(series)
    assert found, series
    return answer.value(found[1], **dict(_LABEL.findall(found[2] or "")))


def shows(exporter: RunningExporter, wanted: Wanted, timeout: float = 30) -> Answer:
    """Scrape until every wanted series has its value (None: is absent); servers pass counters on with a delay."""
    last: list[Answer] = []

    def differing() -> Wanted:
        last[:] = [exporter.scrape()]
        found = {series: sample(last[0], series) for series in wanted}
        return {series: value for series, value in found.items() if not _same(value, wanted[series])}

    try:
        wait_until(lambda: not differing(), "the exporter agrees", timeout)
    except pytest.fail.Exception:
        pytest.fail(f"shown: {differing()}\nwanted: {wanted}\nsuccess: {last[0].success()}")
    return last[0]


def _same(one: float | None, other: float | None) -> bool:
    return one is other is None or (one is not None and other is not None and one == pytest.approx(other, rel=1e-9))


def change(exporter: RunningExporter, series: str, do: Callable[[], object], enough: Callable[[float], bool]) -> float:
    """Return by how much a counter grew by what is done, once that is enough."""
    before = sample(exporter.scrape(), series) or 0
    do()
    grown = 0.0

    def arrived() -> bool:
        nonlocal grown
        grown = (sample(exporter.scrape(), series) or 0) - before
        return enough(grown)

    try:
        wait_until(arrived, series, timeout=15)
    except pytest.fail.Exception:
        pytest.fail(f"{series} grew by {grown}")
    return grown


@contextlib.contextmanager
def busy(server: PostgresServer, statement: str, database: str = "postgres", *first: str) -> Iterator[int]:
    """A session that works on a statement, or waits in it, until the block ends; yields its process id."""
    with contextlib.closing(psycopg.connect(server.dsn(database), autocommit=True)) as connection:
        for one in first:
            connection.execute(one.encode())
        thread = threading.Thread(target=_ignoring_the_end, args=(connection, statement))
        thread.start()
        try:
            yield connection.info.backend_pid
        finally:
            server.execute(f"SELECT pg_terminate_backend({connection.info.backend_pid}, 10000)")
            thread.join()


def _ignoring_the_end(connection: psycopg.Connection[Any], statement: str) -> None:
    with contextlib.suppress(psycopg.Error):
        connection.execute(statement.encode())


def waits_for_lock(server: PostgresServer, pid: int) -> bool:
    """Return whether a process waits for another, by the lock manager itself."""
    return server.execute(f"SELECT cardinality(pg_blocking_pids({pid})) > 0") == [(True,)]


def position(lsn: str) -> int:
    """Return a WAL position in bytes: two hexadecimal halves of 32 bits."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def write(server: PostgresServer, rows: int = 1000) -> None:
    """Write some WAL."""
    server.execute(f"INSERT INTO written SELECT n, repeat('x', 100) FROM generate_series(1, {rows}) AS n")  # noqa: S608


def lsn(server: PostgresServer, function: str = "pg_current_wal_lsn") -> int:
    """Return a position of the server's, in bytes."""
    return position(server.execute(f"SELECT {function}()::text")[0][0])


def tells(exporter: RunningExporter, series: str, server: PostgresServer, start: int) -> None:
    """Check that a series is the distance from a position to the server's, which writes a little of its own accord."""
    low = lsn(server) - start
    shown = sample(exporter.scrape(), series)
    assert shown is not None
    assert low <= shown <= lsn(server) - start


def caught_up(primary: PostgresServer, standby: PostgresServer, function: str = "pg_last_wal_replay_lsn") -> None:
    """Wait until a replica has what the primary has."""
    wait_until(lambda: lsn(standby, function) == lsn(primary), "the replica has all WAL")
