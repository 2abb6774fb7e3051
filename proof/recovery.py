"""What a restore has to bring back, seen independently of it: hashes of all tables, and a count that goes on."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from threading import Thread

from lab import Machine

_PSQL = "PGOPTIONS='-c client_min_messages=warning' runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d erp"
_EACH = "FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname \\gexec"
_HASHES = (
    "SELECT format('SELECT %L, md5(string_agg(one::text, chr(10) ORDER BY one::text)) FROM %s AS one', relname, "
    f"oid::regclass) {_EACH}"
)
# Nobody else writes from the hashes to the end of the transaction, and so also not one second before it.
_DISASTER = f"""
BEGIN;
SELECT format('LOCK TABLE %s IN EXCLUSIVE MODE', string_agg(oid::regclass::text, ', ' ORDER BY relname))
FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace \\gexec
{_HASHES}
SELECT 'moment', clock_timestamp() + interval '1 s';
DO 'BEGIN PERFORM pg_sleep(2); END';
DROP TABLE lagerbewegung CASCADE;
DELETE FROM auftrag;
COMMIT;
"""
_TICKS = (
    "(echo 'CREATE SCHEMA IF NOT EXISTS proof; CREATE TABLE IF NOT EXISTS proof.tick (number int, at timestamptz);'; "
    "for number in $(seq 100000); do "
    "echo \"INSERT INTO proof.tick VALUES ($number, clock_timestamp());\"; "
    "echo \"SELECT number, extract(epoch FROM at), pg_walfile_name(pg_current_wal_insert_lsn()) "
    "FROM proof.tick ORDER BY number DESC LIMIT 1;\"; sleep 0.2; done) | " + _PSQL
)  # fmt: skip
_WAL_FILES = "ls /srv/messwarte-backup/repository/archive/main/17-1/*"


@dataclass(frozen=True)
class Tick:
    """A committed row: its number, its time (seconds since 1970), and a WAL file not before that of its commit."""

    number: int
    at: float
    wal_file: str


@dataclass
class Ticks:
    """What was committed, as the session itself was told."""

    seen: list[Tick] = field(default_factory=list)


def hashes(database: Machine) -> dict[str, str]:
    """Return a hash of the rows of each table of the ERP."""
    return _pairs(_sql(database, _HASHES))


def disaster(database: Machine) -> tuple[dict[str, str], datetime]:
    """Drop and empty tables; return the hashes before it, and a moment a second before it."""
    found = _pairs(_sql(database, _DISASTER))
    return found, datetime.fromisoformat(found.pop("moment"))


@contextlib.contextmanager
def ticking(database: Machine) -> Iterator[Ticks]:
    """Commit a row five times a second, and note it as soon as its commit is acknowledged."""
    ticks = Ticks()

    def read() -> None:
        assert session.stdout is not None  # noqa: S101  a pipe was asked for
        for line in session.stdout:
            number, at, wal_file = line.strip().split("|")
            ticks.seen.append(Tick(int(number), float(at), wal_file))

    with subprocess.Popen([*database.ssh(), _TICKS], stdout=subprocess.PIPE, text=True) as session:
        reader = Thread(target=read, daemon=True)
        reader.start()
        try:
            yield ticks
        finally:
            # The host may be gone.
            session.kill()
            reader.join()


def last_tick(database: Machine) -> int:
    """Return the last number that is in the database; all before it have to be there, too."""
    last, count = _sql(database, "SELECT max(number), count(*) FROM proof.tick").strip().split("|")
    if last != count:
        raise AssertionError(f"{count} rows up to number {last}: some are missing")
    return int(last)


def last_archived(store: Machine) -> str:
    """Return the name of the last WAL file in the folder where the backups are kept."""
    return str(max(re.findall(r"(?m)^([0-9A-F]{24})-", store.succeed(_WAL_FILES))))


def _sql(database: Machine, sql: str) -> str:
    return database.succeed(f"{_PSQL} <<'END'\n{sql}\nEND")


def _pairs(rows: str) -> dict[str, str]:
    return dict(line.split("|", 1) for line in rows.strip().splitlines())
