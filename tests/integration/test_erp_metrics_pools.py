"""Pools and SQLAlchemy on a real server: connections that are out, one count per query, sums over processes."""

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import psycopg_pool
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

import erp_metrics
from tests.integration.conftest import PostgresServer, free_port, wait_until
from tests.unit.erp_metrics_rig import Rig, rigged

SOURCE = Path(erp_metrics.__file__).resolve().parents[1]


@pytest.fixture
def rig(database: str) -> Iterator[Rig]:  # noqa: ARG001 - made before anything is measured
    """Measuring with a registry of its own."""
    with rigged() as found:
        yield found


def url(dsn: str) -> str:
    """Return SQLAlchemy's URL of a connection string."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    return f"postgresql+psycopg://{parts['user']}@{parts['host']}:{parts['port']}/{parts['dbname']}"


def out(rig: Rig) -> float | None:
    """Connections that are checked out."""
    return rig.value("erp_db_active_connections")


def test_connections_of_a_pool(rig: Rig, database: str) -> None:
    """Out and back, twice returned, refused, broken; its own checks are no queries."""
    check = psycopg_pool.ConnectionPool.check_connection
    with (
        psycopg_pool.ConnectionPool(database, min_size=1, max_size=3, open=True, check=check) as pool,
        psycopg_pool.ConnectionPool(database, min_size=1, open=True) as other,
    ):
        with pool.connection() as one, pool.connection():
            assert out(rig) == 2
            one.execute("SELECT 1")
            with pytest.raises(ValueError, match="can't return connection"):
                other.putconn(one)
            assert out(rig) == 2
        assert out(rig) == 0
        with pytest.raises(psycopg.OperationalError), pool.connection() as broken:
            broken.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert out(rig) == 0
        taken = [pool.getconn() for _ in range(3)]
        with pytest.raises(psycopg_pool.PoolTimeout):
            pool.getconn(timeout=0.05)
        assert out(rig) == 3
        for connection in taken:
            pool.putconn(connection)
    assert out(rig) == 0
    assert rig.queries() == {"select": 2}


def test_seconds_of_connections_that_were_out(rig: Rig, database: str) -> None:
    """As long as two held one each: no less than PostgreSQL slept, no more than passed meanwhile."""
    with psycopg_pool.ConnectionPool(database, min_size=2, open=True) as pool:
        begun = time.perf_counter()
        with pool.connection() as one, pool.connection():
            one.execute("SELECT pg_sleep(0.2)")
        passed = time.perf_counter() - begun
        assert 0.4 <= (rig.value("erp_db_connection_seconds_total") or 0) <= 2 * passed


def test_connections_of_an_asyncio_pool(rig: Rig, database: str) -> None:
    """One whose user is cancelled comes back too; one that another pool refuses is still out."""

    async def run() -> None:
        async with (
            psycopg_pool.AsyncConnectionPool(database, min_size=1, max_size=3, open=False) as pool,
            psycopg_pool.AsyncConnectionPool(database, min_size=1, open=False) as other,
        ):
            async with pool.connection() as one:
                with pytest.raises(ValueError, match="can't return connection"):
                    await other.putconn(one)
                assert out(rig) == 1
            holding = asyncio.Event()

            async def hold() -> None:
                async with pool.connection():
                    holding.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(hold())
            await holding.wait()
            async with pool.connection():
                assert out(rig) == 2
            assert out(rig) == 1
            task.cancel()
            await asyncio.wait([task])
            assert out(rig) == 0

    asyncio.run(run())


def pool_numbers(rig: Rig, pool: str) -> tuple[float | None, ...]:
    """A pool's connections: used, waited for, there, at most."""
    names = ("pool_connections_used", "pool_waiting", "pool_connections", "pool_connections_max")
    return tuple(rig.value(f"erp_db_{name}", pool=pool) for name in names)


def test_numbers_of_psycopgs_pool(rig: Rig, database: str) -> None:
    """As many connections as PostgreSQL sees; nothing is left of a pool that is gone."""
    seen = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pool'"
    pool = psycopg_pool.ConnectionPool(
        f"{database} application_name=pool", min_size=2, max_size=3, name="erp", open=True
    )
    with psycopg.connect(database, autocommit=True) as watcher, ThreadPoolExecutor() as threads:
        with pool.connection(), pool.connection(), pool.connection():
            (size,) = watcher.execute(seen).fetchone() or (0,)
            assert pool_numbers(rig, "erp") == (3, 0, size, 3) == (3, 0, 3, 3)
            waiting = [threads.submit(pool.getconn) for _ in range(2)]
            wait_until(lambda: pool_numbers(rig, "erp") == (3, 2, 3, 3), "two wait")
            with pytest.raises(psycopg_pool.PoolTimeout):
                pool.getconn(timeout=0.05)
            assert pool_numbers(rig, "erp") == (3, 2, 3, 3)
        for one in waiting:
            pool.putconn(one.result())
        assert pool_numbers(rig, "erp") == (0, 0, 3, 3)
    pool.close()
    del pool
    gc.collect()
    assert pool_numbers(rig, "erp") == (0, 0, 0, 0)


def test_who_waits_for_a_server_that_is_away_is_seen(rig: Rig) -> None:
    """Though the pool has never had a connection; who has given up waits no more."""
    with (
        psycopg_pool.ConnectionPool(f"host=127.0.0.1 port={free_port()}", min_size=1, name="weg", open=True) as pool,
        ThreadPoolExecutor() as threads,
    ):
        waiting = [threads.submit(pool.getconn, timeout) for timeout in (2, 4)]
        wait_until(lambda: rig.value("erp_db_pool_waiting", pool="weg") == 2, "two wait")
        with pytest.raises(psycopg_pool.PoolTimeout):
            waiting[0].result()
        assert rig.value("erp_db_pool_waiting", pool="weg") == 1
        with pytest.raises(psycopg_pool.PoolTimeout):
            waiting[1].result()
        assert pool_numbers(rig, "weg")[:2] == (0, 0)


def test_numbers_of_sqlalchemys_pool(rig: Rig, database: str) -> None:
    """One more than its size is opened for the moment; one more than that waits."""
    engine = create_engine(url(database), pool_size=1, max_overflow=1, pool_logging_name="orm")
    with ThreadPoolExecutor() as threads:
        with engine.connect():
            assert pool_numbers(rig, "orm") == (1, 0, 1, 2)
            with engine.connect():
                waiting = threads.submit(engine.connect)
                wait_until(lambda: pool_numbers(rig, "orm") == (2, 1, 2, 2), "one waits")
            wait_until(lambda: pool_numbers(rig, "orm") == (2, 0, 2, 2), "it has got one")
        waiting.result().close()
        assert pool_numbers(rig, "orm") == (0, 0, 1, 2)
    engine.dispose()


def test_sqlalchemy_on_psycopg_counts_once(rig: Rig, database: str) -> None:
    """By psycopg's hooks; pings of the pool are no queries, and a connection is out once."""
    engine = create_engine(url(database), pool_pre_ping=True)
    with engine.connect():
        assert out(rig) == 1
    before = rig.queries()
    with engine.connect() as connection, erp_metrics.query("orm"):
        connection.execute(text("SELECT 1"))
        with pytest.raises(ProgrammingError):
            connection.execute(text("SELECT 1 FROM weg"))
    assert rig.queries() == before | {"orm": 2}
    assert out(rig) == 0
    engine.dispose()


def test_sqlalchemy_over_psycopgs_pool_counts_a_connection_once(rig: Rig, database: str) -> None:
    with psycopg_pool.ConnectionPool(database, min_size=1, open=True, close_returns=True) as pool:
        engine = create_engine("postgresql+psycopg://", poolclass=NullPool, creator=pool.getconn)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            assert out(rig) == 1
        assert out(rig) == 0


def test_asyncio_sqlalchemy_over_psycopgs_pool_counts_a_connection_once(rig: Rig, database: str) -> None:
    """Although SQLAlchemy wraps the driver's connection."""

    async def run() -> None:
        async with psycopg_pool.AsyncConnectionPool(database, min_size=1, open=False, close_returns=True) as pool:
            engine = create_async_engine("postgresql+psycopg://", poolclass=NullPool, async_creator=pool.getconn)
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                assert out(rig) == 1
            assert out(rig) == 0

    asyncio.run(run())


def test_asyncio_sqlalchemy_belongs_to_its_request(rig: Rig, database: str) -> None:
    """Name and endpoint pass SQLAlchemy's greenlets; a synchronous endpoint's thread has them too."""
    engine = create_async_engine(url(database))
    app = FastAPI()
    erp_metrics.instrument(app)

    @app.get("/orm/{wert}")
    async def orm(wert: int) -> int:
        async with engine.connect() as connection, erp_metrics.query("orm"):
            assert out(rig) == 1
            return int((await connection.execute(text("SELECT :wert + 0"), {"wert": wert})).scalar_one())

    @app.get("/faden/{wert}")
    def thread(wert: int) -> int:
        with psycopg.connect(database) as connection:
            row = connection.execute("/* name: faden */ SELECT %s + 0", (wert,)).fetchone()
            return int(row[0]) if row else 0

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://erp") as client:
            await client.get("/orm/0")
            asked = [client.get(f"/{path}/{value}") for value in range(5) for path in ("orm", "faden")]
            answers = [(await one).json() for one in asked]
        await engine.dispose()
        return answers

    assert asyncio.run(ask()) == [value for value in range(5) for _ in range(2)]
    assert rig.value("erp_db_query_count_total", query_name="orm") == 6
    assert rig.queries()["faden"] == 5
    assert rig.endpoints()["/faden/{wert}"] == 5
    assert out(rig) == 0


PROCESS = """
import sys, psycopg, psycopg_pool, erp_metrics
erp_metrics.instrument(None, metrics_port=int(sys.argv[2]), queries=["zaehlen"])
with psycopg_pool.ConnectionPool(sys.argv[1], min_size=1, open=True) as pool, pool.connection() as connection:
    connection.execute("/* name: zaehlen */ SELECT 1")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_processes_are_summed_and_the_dead_are_forgotten(postgres: PostgresServer, tmp_path: Path) -> None:
    """Two processes serve one sum; what a killed one had checked out is gone, what it counted stays."""
    port = free_port()
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", PROCESS, postgres.dsn(), str(port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]

    def samples() -> dict[str, float]:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("query_name", "zaehlen") == "zaehlen" and "le" not in sample.labels
        }

    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for name in ("erp_db_query_count_total", "erp_db_query_duration_seconds_count", "erp_db_active_connections"):
            wait_until(lambda name=name: samples()[name] == 2, f"{name} is 2")  # type: ignore[misc]
        # The later one could not have the port, and said nothing: that is how it is meant to be.
        later = next(one for one in processes if not _listens(one.pid, port))
        later.kill()
        assert later.communicate()[1] == ""
        wait_until(lambda: samples()["erp_db_active_connections"] == 1, "the killed one's connection is forgotten")
        assert samples()["erp_db_query_count_total"] == 2
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _listens(pid: int, port: int) -> bool:
    """Tell whether a process holds the listening socket of a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {line[9] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"}
    links = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]
    return any(link == f"socket:[{inode}]" for link in links for inode in inodes)
