"""The migration runner of the tests: a real process, a directory of its own, and questions to the catalog."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

SOURCE = Path(__file__).resolve().parents[2] / "sql_migrations" / "runner" / "src"
Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass
class Runner:
    """Runs verbs against one database with one directory."""

    dsn: str
    directory: Path

    def write(self, **files: str) -> None:
        """Write migrations; names without their ending."""
        for name, text in files.items():
            folder = self.directory / ("repeatable" if name.startswith("R__") else "versioned")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.sql").write_text(text)

    def start(self, verb: str, *options: str) -> subprocess.Popen[str]:
        """Start a verb and return its process."""
        command = [sys.executable, "-m", "messwarte_migrate", verb, "--dsn", self.dsn, "--directory"]
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*command, str(self.directory), *options], env=environment, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, verb: str, *options: str, status: int = 0) -> str:
        """Run a verb to its end, check its exit status, and return what it said on both channels."""
        return finish(self.start(verb, *options), status)

    def status(self, expected: int) -> dict[str, Any]:
        """Return `status --json`."""
        process = self.start("status", "--json")
        out, err = process.communicate(timeout=60)
        assert process.returncode == expected, out + err
        return dict(json.loads(out))

    def states(self, expected: int) -> dict[str, str]:
        """Return the state of each file without its ending."""
        return {one["file"].removesuffix(".sql"): one["state"] for one in self.status(expected)["files"]}


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for a process, check its exit status, and return what it said on both channels."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, out + err
    return out + err


def ask(connection: Connection, query: str, *values: object) -> Any:
    """Return the first column of the first row, or None."""
    row = connection.execute(query.encode(), values or None).fetchone()
    return row[0] if row else None


def valid(connection: Connection, index: str) -> bool | None:
    """Return whether an index is valid; None when there is no such index."""
    found = ask(connection, "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", index)
    return None if found is None else bool(found)
