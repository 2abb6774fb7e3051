"""Real servers from local binaries: PostgreSQL and Redis on loopback, thrown away after the session."""

import contextlib
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.pgstat_subject import Subject, fresh
from tests.integration.postgres_server import Installation, PostgresServer, free_port, postgres_server, wait_until
from tests.integration.postgres_versions import MAJORS, Versions
from tests.integration.prometheus_process import Watch, watching

__all__ = ["Installation", "PostgresServer", "free_port", "postgres_server", "wait_until"]

_PASSWORD_LENGTH = 16


@pytest.fixture(scope="session")
def local_postgresql(need_program: Callable[[str, str], str]) -> Installation:
    """This machine's own PostgreSQL."""
    return Installation(Path(need_program("initdb", "postgresql")).resolve().parent)


@pytest.fixture(scope="session")
def postgres(local_postgresql: Installation) -> Iterator[PostgresServer]:
    """A real PostgreSQL with pg_stat_statements preloaded."""
    configuration = "shared_preload_libraries = 'pg_stat_statements'\ntrack_io_timing = on\n"
    with postgres_server(local_postgresql, configuration, "-A", "trust") as server:
        yield server


@pytest.fixture(scope="session")
def versions(local_postgresql: Installation, pytestconfig: pytest.Config) -> Iterator[Versions]:
    """PostgreSQL of several major versions; the first run ever makes them, which takes a minute or two each."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def progress(line: str) -> None:
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            print(f"\n{line}", flush=True)  # noqa: T201

    with Versions.ready(local_postgresql, progress) as found:
        yield found


@pytest.fixture(scope="session", params=MAJORS)
def any_postgres(versions: Versions, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of each major version, configured for what collectors read; skipped where it cannot be had."""
    with versions.server(request.param) as server:
        yield server


@pytest.fixture
def subject(any_postgres: PostgresServer, tmp_path: Path) -> Iterator[Subject]:
    """A fresh database on a server of each version, for collectors that are asked in each database."""
    with fresh(any_postgres, tmp_path) as one:
        yield one


@pytest.fixture
def watch(need_program: Callable[[str, str], str], tmp_path: Path) -> Watch:
    """A function that has a Prometheus watch an exporter."""
    program = need_program("prometheus", "prometheus")
    return lambda port, seconds=2: watching(program, tmp_path / f"prometheus-{port}", port, seconds)


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """A fresh, empty database's connection string; dropped afterwards."""
    name = f"test_{secrets.token_hex(4)}"
    postgres.execute(f"CREATE DATABASE {name}")
    yield postgres.dsn(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class RedisServer:
    """A Redis server of the test session with a password for its default user."""

    port: int
    password: str

    def url(self, db: int) -> str:
        """Return a redis:// URL of one database, password included."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{db}"


@pytest.fixture(scope="session")
def redis_server(
    need_program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """A real Redis, empty and without persistence."""
    program = need_program("redis-server", "redis-server")
    server = RedisServer(free_port(), secrets.token_urlsafe(_PASSWORD_LENGTH))
    configuration = tmp_path_factory.mktemp("redis") / "redis.conf"
    configuration.write_text(
        f'bind 127.0.0.1\nport {server.port}\nrequirepass {server.password}\nsave ""\nmaxmemory-policy noeviction\n'
    )
    with subprocess.Popen([program, str(configuration)], stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _accepts(server.port), f"redis-server listens on port {server.port}")
            yield server
        finally:
            process.terminate()


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
