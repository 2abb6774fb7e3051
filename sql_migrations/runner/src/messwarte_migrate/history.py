"""The history in messwarte.migration_history, and what it says of the files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

from messwarte_migrate.files import Migration

Connection = psycopg.Connection[tuple[Any, ...]]

_SCHEMA = b"""
CREATE SCHEMA IF NOT EXISTS messwarte;
CREATE TABLE IF NOT EXISTS messwarte.migration_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    file text NOT NULL,
    version int UNIQUE,
    checksum text NOT NULL,
    started_at timestamptz NOT NULL,
    applied_at timestamptz,
    seconds double precision,
    error text,
    applied_by text NOT NULL DEFAULT session_user
);
CREATE TABLE IF NOT EXISTS messwarte.mv_refresh_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    view text NOT NULL,
    started_at timestamptz NOT NULL,
    seconds double precision NOT NULL,
    rows bigint,
    error text
);
CREATE INDEX IF NOT EXISTS mv_refresh_log_view_started_at_idx ON messwarte.mv_refresh_log (view, started_at);
"""
_READ = b"""
SELECT DISTINCT ON (file) file, version, checksum, applied_at, seconds, error
FROM messwarte.migration_history
ORDER BY file, id DESC
"""
# A versioned file has one row for ever; each application of a repeatable one has its own.
_BEGIN = b"""
INSERT INTO messwarte.migration_history (file, version, checksum, started_at)
VALUES (%(file)s, %(version)s, %(checksum)s, clock_timestamp())
ON CONFLICT (version) DO UPDATE SET file = EXCLUDED.file, checksum = EXCLUDED.checksum,
    started_at = EXCLUDED.started_at, applied_by = EXCLUDED.applied_by, error = NULL
RETURNING id
"""
_DONE = b"""
UPDATE messwarte.migration_history
SET applied_at = clock_timestamp(), seconds = extract(epoch FROM clock_timestamp() - started_at), error = NULL
WHERE id = %(id)s
RETURNING seconds
"""
_FAILED = b"UPDATE messwarte.migration_history SET error = %(error)s WHERE id = %(id)s"

State = Literal["applied", "pending", "changed", "interrupted", "failed", "missing", "lost"]


@dataclass(frozen=True)
class Entry:
    """The newest row of a file."""

    file: str
    version: int | None
    checksum: str
    applied_at: datetime | None
    seconds: float | None
    error: str | None


@dataclass(frozen=True)
class Status:
    """A file's state: as it lies in the directory (None when it is gone) and as it was applied (None when never)."""

    file: str
    state: State
    migration: Migration | None
    entry: Entry | None
    lost: Sequence[str] = ()

    @property
    def problem(self) -> str | None:
        """Why nothing may be applied, or None."""
        when = f"{self.entry.applied_at:%Y-%m-%d}" if self.entry and self.entry.applied_at else ""
        if self.state == "changed":
            return f"{self.file} was changed after it was applied on {when}: restore it, and write a new migration"
        # A repeatable file may go; its object stays until a migration drops it.
        if self.state == "missing" and self.entry and self.entry.version is not None:
            return f"{self.file} was applied on {when} and is no longer in the directory: restore it"
        return None

    @property
    def to_do(self) -> bool:
        """Whether `apply` would run the file."""
        return self.state in {"pending", "interrupted", "failed", "lost"}


def create(connection: Connection) -> None:
    """Make the schema messwarte and its tables where they are missing; the runner's lock has to be held."""
    with connection.transaction():
        connection.execute(_SCHEMA)


def exists(connection: Connection) -> bool:
    """Return whether the tables are there."""
    row = connection.execute(b"SELECT to_regclass('messwarte.mv_refresh_log') IS NOT NULL").fetchone()
    return bool(row and row[0])


def read(connection: Connection) -> list[Entry]:
    """Return each file's newest entry; none when nothing was ever applied."""
    if not exists(connection):
        return []
    with connection.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(_READ).fetchall()


def compare(
    migrations: Sequence[Migration], entries: Sequence[Entry], lost: Mapping[str, Sequence[str]] | None = None
) -> list[Status]:
    """Return the state of every file: versioned ones in order, then repeatable ones.

    `lost` says by file which of its objects somebody took away since.
    """
    by_file = {entry.file: entry for entry in entries}
    # A versioned file that was renamed is still the one that was applied under its number.
    by_version = {entry.version: entry for entry in entries if entry.version is not None}
    statuses = []
    for one in migrations:
        entry = by_file.get(one.file) if one.version is None else by_version.get(one.version)
        if entry is not None and entry.applied_at is not None and entry.file != one.file:
            statuses.append(Status(entry.file, "missing", None, entry))
        else:
            state, gone_objects = _state(one, entry), (lost or {}).get(one.file, ())
            state = "lost" if state == "applied" and gone_objects else state
            statuses.append(Status(one.file, state, one, entry, gone_objects if state == "lost" else ()))
    versions, files = {one.version for one in migrations}, {one.file for one in migrations}
    kept = [entry for entry in entries if entry.applied_at is not None]
    gone = [e for e in kept if (e.file not in files if e.version is None else e.version not in versions)]
    statuses += [Status(entry.file, "missing", None, entry) for entry in gone]
    return sorted(statuses, key=lambda status: (status.file.startswith("R__"), status.file))


def _state(one: Migration, entry: Entry | None) -> State:
    if entry is None:
        return "pending"
    if entry.applied_at is None:
        return "failed" if entry.error else "interrupted"
    if entry.checksum == one.checksum:
        return "applied"
    return "pending" if one.version is None else "changed"


def begin(connection: Connection, one: Migration) -> int:
    """Note that a migration begins; return its row's id."""
    row = connection.execute(_BEGIN, {"file": one.file, "version": one.version, "checksum": one.checksum}).fetchone()
    return int(row[0]) if row else 0


def done(connection: Connection, row_id: int) -> float:
    """Note that a migration is applied; return the seconds it took."""
    row = connection.execute(_DONE, {"id": row_id}).fetchone()
    return float(row[0]) if row else 0.0


def failed(connection: Connection, row_id: int, error: str) -> None:
    """Note why a migration outside of a transaction did not end well."""
    connection.execute(_FAILED, {"id": row_id, "error": error})
