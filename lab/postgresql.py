"""PostgreSQL servers on loopback, from any installation of PostgreSQL: this machine's, or a tree's."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from lab.trees import apt

# Runs a program of another tree as if it were this machine's own; what is mounted for it ends with the last process.
_IN_TREE = (
    'mount --rbind /dev "$1/dev"; mount --bind /proc "$1/proc"; mount -t tmpfs tmpfs "$1/tmp"; '
    'mkdir -p "$1$2"; mount --bind "$2" "$1$2"; '
    'tree=$1; shift 2; exec chroot "$tree" "$@"'
)


@dataclass(frozen=True)
class Installation:
    """PostgreSQL's programs on this machine, or in a tree of another Debian."""

    binaries: Path
    tree: Path | None = None

    def command(self, directory: Path, program: str, *arguments: str) -> list[str]:
        """Return the command of a program, run by the unprivileged owner of a directory, all that a tree's one sees."""
        command = [str(self.binaries / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
        if self.tree:
            command = [
                *("unshare", "--mount", "--", "sh", "-ec", _IN_TREE, "sh"),
                *(str(self.tree), str(directory), *command),
            ]  # fmt: skip
        return command

    def run(self, directory: Path, program: str, *arguments: str) -> None:
        """Run a program to its end as the unprivileged owner of a directory."""
        subprocess.run(
            self.command(directory, program, *arguments),
            check=True,
            cwd=directory,
            stdout=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
        )


@dataclass
class PostgresServer:
    """A PostgreSQL server that is thrown away; its superuser is `postgres`, trusted on loopback."""

    installation: Installation
    directory: Path
    port: int

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    def log(self) -> str:
        """Return what the server has logged."""
        return (self.directory / "log").read_text()

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
        self.installation.run(self.directory, program, *arguments)

    def configure(self, configuration: str) -> None:
        """Append to the configuration, for the next start."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(configuration)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.run("pg_ctl", "-D", str(self.data), "-l", str(self.directory / "log"), "-w", "-s", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server at once; clients lose their connections."""
        self.run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "-s", "stop")


@contextlib.contextmanager
def server_directory(installation: Installation) -> Iterator[PostgresServer]:
    """A server's place without data; what was made and started there is thrown away afterwards."""
    # Not pytest's tmp_path: its 0700 parents shut out the unprivileged server.
    directory = Path(tempfile.mkdtemp(prefix="messwarte-postgres-"))
    server = PostgresServer(installation, directory, free_port())
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "nobody", "nogroup")
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop("immediate")
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def postgres_server(installation: Installation, configuration: str, *arguments: str) -> Iterator[PostgresServer]:
    """A PostgreSQL with further configuration and arguments of initdb; thrown away afterwards."""
    with server_directory(installation) as server:
        server.run("initdb", "-D", str(server.data), "-U", "postgres", "-E", "UTF8", "--no-sync", *arguments)
        server.configure(
            f"port = {server.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"
            f"{configuration}"
        )
        server.start()
        yield server


def install(tree: Path, *packages: str) -> None:
    """Install packages in a tree; PostgreSQL's make no cluster. Raises LabError."""
    settings = tree / "etc/postgresql-common/createcluster.conf"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text("create_main_cluster = false\n")
    apt(tree, "update", "-o", "APT::Update::Error-Mode=any")
    apt(tree, "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "install", *packages)


def free_port() -> int:
    """Return a TCP port on loopback that nothing listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
