"""Commands that run, all six kinds at a time, each held or slowed down: how many, since when, and how far."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_collectors import busy, major_of, reading, sample, shows
from tests.integration.pgstat_exporter_process import Answer, RunningExporter
from tests.integration.postgres_versions import MAJORS, Versions

BLOCK = 8192
KINDS = ("vacuum", "analyze", "create index", "cluster", "copy", "base backup")
SLOW = ("SET vacuum_cost_delay = '100ms'", "SET vacuum_cost_limit = 1")
ROWS = 300
TABLES = """
CREATE TABLE dusty (n int PRIMARY KEY, filler text);
INSERT INTO dusty SELECT n, repeat('x', 300) FROM generate_series(1, 20000) AS n;
DELETE FROM dusty WHERE n > 19000;
CREATE TABLE counted AS TABLE dusty;
CREATE TABLE indexed (n int);
CREATE TABLE loaded (n int);
CREATE FUNCTION slowly(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN n; END';
CREATE TABLE rewritten AS SELECT n FROM generate_series(1, {rows}) AS n;
CREATE INDEX ON rewritten (slowly(n));
CREATE OR REPLACE FUNCTION slowly(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM pg_sleep(1); RETURN n; END';
"""


@pytest.fixture(params=MAJORS)
def prepared(versions: Versions, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server with tables for each of the commands, and without autovacuum."""
    with versions.server(request.param, "autovacuum = off\n") as server:
        server.execute(TABLES.format(rows=ROWS))
        yield server


@contextlib.contextmanager
def copying(server: PostgresServer, rows: int) -> Iterator[int]:
    """A COPY that was given so many rows and waits for more; yields the bytes."""
    data = "".join(f"{n}\n" for n in range(rows)).encode()
    with contextlib.closing(psycopg.connect(server.dsn())) as connection, contextlib.suppress(psycopg.Error):
        cursor = connection.cursor()
        with cursor.copy("COPY loaded FROM STDIN") as copy:
            copy.write(data)
            yield len(data)
            raise psycopg.Error


@contextlib.contextmanager
def backing_up(server: PostgresServer) -> Iterator[None]:
    """A base backup at 32 kB a second, until the block ends."""
    target = server.directory / "backup"
    thread = threading.Thread(target=_back_up, args=(server, target))
    thread.start()
    try:
        yield
    finally:
        server.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'walsender'")
        thread.join()


def _back_up(server: PostgresServer, target: Path) -> None:
    options = ("-D", str(target), "-d", server.dsn(), "-c", "fast", "--max-rate=32", "-X", "none", "--no-sync")
    with contextlib.suppress(subprocess.CalledProcessError):
        server.run("pg_basebackup", *options)


def size(server: PostgresServer, table: str) -> float:
    """Return the size of a table's file on disk."""
    ((name,),) = server.execute(f"SELECT pg_relation_filepath('{table}')")
    return float((server.data / name).stat().st_size)


def of_relation(answer: Answer, name: str, command: str) -> dict[str, float]:
    """Return a command's values by phase, and see that they belong to one relation of the right name."""
    found = {key[1]: value for key, value in answer.items() if key[0] == name and ("command", command) in key[1]}
    return {dict(labels)["phase"]: value for labels, value in found.items()}


def test_progress(prepared: PostgresServer, tmp_path: Path) -> None:
    """Totals by the files on disk and by what was given; what is done, between two looks at the server's own view."""
    with contextlib.ExitStack() as stack:
        exporter = stack.enter_context(reading(prepared, tmp_path, "progress", "server"))
        answer = shows(exporter, {f'pg_progress_running{{command="{kind}"}}': 0 for kind in KINDS})
        assert "pg_progress_done_bytes" not in answer.body
        assert "pg_progress_oldest_start_timestamp_seconds" not in answer.body
        prepared.execute("CHECKPOINT")
        before = time.time()
        stack.enter_context(busy(prepared, "VACUUM (PARALLEL 0) dusty", "postgres", *SLOW))
        stack.enter_context(busy(prepared, "ANALYZE counted", "postgres", *SLOW))
        stack.enter_context(busy(prepared, "VACUUM FULL rewritten"))
        given = stack.enter_context(copying(prepared, 50_000))
        stack.enter_context(backing_up(prepared))
        shows(exporter, {f'pg_progress_running{{command="{kind}"}}': float(kind != "create index") for kind in KINDS})
        wait_until(lambda: len(exporter.scrape().labelled("pg_progress_done_bytes", "command")) == 5, "five are long")
        started = exporter.scrape().labelled("pg_progress_oldest_start_timestamp_seconds", "command")
        assert set(started) == set(KINDS) - {"create index"}
        assert all(before - 1 <= value <= time.time() - 5 for value in started.values())
        check_vacuum(exporter, prepared)
        check_others(exporter, prepared, given)
    check_index(prepared, tmp_path)


def check_vacuum(exporter: RunningExporter, server: PostgresServer) -> None:
    """Between two looks at the view, and of the whole file."""
    look = "SELECT phase, heap_blks_scanned * 8192, index_vacuum_count FROM pg_stat_progress_vacuum"
    ((_, low, passes),) = server.execute(look)
    answer = exporter.scrape()
    ((_, high, _),) = server.execute(look)
    (shown,) = of_relation(answer, "pg_progress_done_bytes", "vacuum").values()
    assert low <= shown <= high
    labels = {'command="vacuum",datname="postgres",relation="public.dusty",phase="scanning heap"'}
    assert {sample(answer, f"pg_progress_total_bytes{{{one}}}") for one in labels} == {size(server, "dusty")}
    relation = '{datname="postgres",relation="public.dusty"}'
    assert sample(answer, f"pg_progress_vacuum_index_passes{relation}") == passes == 0
    ratio = sample(answer, f"pg_progress_vacuum_dead_items_ratio{relation}")
    assert ratio is not None
    assert 0 <= ratio < 1
    major = major_of(server)
    assert sample(answer, f"pg_progress_vacuum_indexes_processed{relation}") == (0 if major >= 17 else None)
    assert sample(answer, f"pg_progress_vacuum_delay_seconds{relation}") == (0 if major >= 18 else None)


def check_others(exporter: RunningExporter, server: PostgresServer, given: int) -> None:
    """By what they were given: rows, bytes, and the files on disk."""
    answer = exporter.scrape()
    labels = 'command="{}",datname="postgres",relation="public.{}",phase="{}"'
    copy = labels.format("copy", "loaded", "copy from")
    assert sample(answer, f"pg_progress_done_bytes{{{copy}}}") == given
    assert sample(answer, f"pg_progress_done_rows{{{copy}}}") == pytest.approx(50_000, abs=1)
    assert sample(answer, f"pg_progress_total_bytes{{{copy}}}") is None
    analyze = labels.format("analyze", "counted", "acquiring sample rows")
    assert sample(answer, f"pg_progress_total_bytes{{{analyze}}}") == size(server, "counted")
    rewritten = of_relation(answer, "pg_progress_done_rows", "cluster")
    assert rewritten == {"rebuilding index": ROWS}
    backup = 'command="base backup",datname="",relation="",phase="streaming database files"'
    total, done = (sample(answer, f"pg_progress_{name}_bytes{{{backup}}}") for name in ("total", "done"))
    on_disk = sum(
        path.stat().st_size for path in server.data.rglob("*") if path.is_file() and "pg_wal" not in path.parts
    )
    assert total == pytest.approx(on_disk, rel=0.05)
    assert done is not None
    assert 0 < done < on_disk


def check_index(server: PostgresServer, folder: Path) -> None:
    """CREATE INDEX CONCURRENTLY waits for one transaction that wrote, and finishes once that ends."""
    with contextlib.ExitStack() as stack:
        exporter = stack.enter_context(reading(server, folder, "progress", "server"))
        writer = stack.enter_context(psycopg.connect(server.dsn()))
        writer.execute("INSERT INTO indexed VALUES (1)")
        stack.enter_context(busy(server, "CREATE INDEX CONCURRENTLY ON indexed (n)"))
        phase = "waiting for writers before build"
        labels = f'command="create index",datname="postgres",relation="public.indexed",phase="{phase}"'
        shows(
            exporter, {f"pg_progress_awaited_lockers{{{labels}}}": 1, 'pg_progress_running{command="create index"}': 1}
        )
        writer.commit()
        answer = shows(exporter, {'pg_progress_running{command="create index"}': 0})
        assert "pg_progress_done_bytes" not in answer.body


def used_up(server: PostgresServer) -> bool:
    """Use up a transaction id."""
    return bool(server.execute("SELECT pg_current_xact_id()"))


def test_a_relation_of_another_database_is_a_number(any_postgres: PostgresServer, tmp_path: Path) -> None:
    """Its name is known in its own database only; and VACUUM's own snapshot does not hold back the horizon."""
    any_postgres.execute("CREATE DATABASE elsewhere")
    try:
        any_postgres.execute(
            # What autovacuum had gone through, VACUUM would be through with at once.
            "CREATE TABLE dusty WITH (autovacuum_enabled = off) AS "
            "SELECT repeat('x', 300) FROM generate_series(1, 20000)",
            "elsewhere",
        )
        ((oid,),) = any_postgres.execute("SELECT 'dusty'::regclass::oid::text", "elsewhere")
        with (
            reading(any_postgres, tmp_path, "progress", "horizon") as exporter,
            busy(any_postgres, "VACUUM dusty", "elsewhere", *SLOW) as vacuum,
        ):
            look = f"SELECT age(backend_xmin) FROM pg_stat_activity WHERE pid = {vacuum}"  # noqa: S608
            wait_until(lambda: (any_postgres.execute(look)[0][0] or 0) > 0 or not used_up(any_postgres), "it has one")
            shows(exporter, {'pg_xmin_horizon_age_xids{holder="session"}': 0})
            relation = f'{{datname="elsewhere",relation="{oid}"}}'
            shows(exporter, {f"pg_progress_vacuum_index_passes{relation}": 0})
    finally:
        any_postgres.execute("DROP DATABASE elsewhere WITH (FORCE)")
