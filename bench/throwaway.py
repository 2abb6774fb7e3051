"""A PostgreSQL for the length of a benchmark, from this machine's own programs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lab.postgresql import Installation, postgres_server


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Start a server on loopback and yield a connection string. Raises FileNotFoundError without PostgreSQL."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise FileNotFoundError("no PostgreSQL server here: apt-get install postgresql, or give --dsn")
    with postgres_server(Installation(versions[-1].parent), "", "-A", "trust", "--locale=C.UTF-8") as server:
        yield server.dsn()
