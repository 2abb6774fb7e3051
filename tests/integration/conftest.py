"""Real servers from local binaries: PostgreSQL and Redis on loopback, thrown away after the session."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

_PASSWORD_LENGTH = 16


def free_port() -> int:
    """Return a TCP port on loopback that nothing listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 30) -> None:
    """Poll a condition until it holds; fail with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} within {timeout:g} s")
        time.sleep(0.05)


@dataclass
class PostgresServer:
    """A PostgreSQL server of the test session; its superuser is `postgres`, trusted on loopback."""

    binaries: Path
    directory: Path
    port: int

    def dsn(self, database: str = "postgres", user: str | None = None) -> str:
        """Return a libpq connection string."""
        return f"host=127.0.0.1 port={self.port} dbname={database} user={user or 'postgres'}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL as superuser and return its rows, or an empty list when it yields none."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the unprivileged owner of the data directory."""
        command = [str(self.binaries / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
        subprocess.run(
            command,
            check=True,
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        data, log = self.directory / "data", self.directory / "log"
        self.run("pg_ctl", "-D", str(data), "-l", str(log), "-w", "-s", "start")

    def stop(self) -> None:
        """Stop the server at once; clients lose their connections."""
        self.run("pg_ctl", "-D", str(self.directory / "data"), "-m", "fast", "-w", "-s", "stop")


@contextlib.contextmanager
def postgres_server(initdb: Path, configuration: str, *arguments: str) -> Iterator[PostgresServer]:
    """A PostgreSQL with further configuration and arguments of initdb; thrown away afterwards."""
    # Not pytest's tmp_path: its 0700 parents shut out the unprivileged server.
    directory = Path(tempfile.mkdtemp(prefix="messwarte-postgres-"))
    server = PostgresServer(initdb.resolve().parent, directory, free_port())
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "nobody", "nogroup")
        server.run(
            "initdb", "-D", str(directory / "data"), "-U", "postgres", "-E", "UTF8", "--no-sync", *arguments
        )  # fmt: skip
        with (directory / "data" / "postgresql.conf").open("a") as file:
            file.write(
                f"port = {server.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"
                f"{configuration}"
            )
        server.start()
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(need_program: Callable[[str, str], str]) -> Iterator[PostgresServer]:
    """A real PostgreSQL with pg_stat_statements preloaded."""
    configuration = "shared_preload_libraries = 'pg_stat_statements'\ntrack_io_timing = on\n"
    with postgres_server(Path(need_program("initdb", "postgresql")), configuration, "-A", "trust") as server:
        yield server


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
