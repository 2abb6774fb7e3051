"""Brings the database back beside its old data, and exchanges the two folders when the new one has been seen to run."""

import json
import time
from datetime import datetime
from pathlib import Path

from deploy.backup.host import private, repository, state
from deploy.backup.host.drill import need_space
from deploy.backup.host.private import SOCKET, Recovered, Target
from deploy.backup.host.repository import STANZA, Series
from deploy.backup.host.system import DATA, STATE, BackupError, control, moment, psql, run, say

_NEW = DATA.parent / "main.restored"
_OLD = "main.before-restore-"
_BUSY = "a backup or a drill is at work on this host; wait for it, or stop its unit"
_RESULT = STATE / "restore.json"
# What pgBackRest wrote for this one recovery, and would be wrong for any other.
_RECOVERY = (
    "SELECT name FROM pg_settings WHERE category LIKE 'Write-Ahead Log / %Recovery%' AND sourcefile LIKE '%auto.conf'"
)
_SESSIONS = (
    "SELECT format('%s %s (%s)', usename, coalesce(host(client_addr), 'here'), count(*)) FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY usename, client_addr ORDER BY 1"
)


def target(to: str, timeline: int | None) -> Target:
    """Return where a restore ends, from `latest` or a moment. Raises BackupError naming what would be right."""
    if to == "latest":
        return Target(timeline=timeline)
    try:
        wanted = datetime.fromisoformat(to)
    except ValueError:
        wanted = None
    if wanted is None or wanted.tzinfo is None:
        raise BackupError(
            f"`{to}` is no moment; it must be `latest`, or like `2026-11-25 01:02:03+00` with its time zone"
        )
    if wanted.timestamp() > time.time():
        raise BackupError(f"{to} has not come yet")
    return Target(wanted, timeline)


def check(wanted: Target) -> None:
    """Say what a restore would do; changes nothing. Raises BackupError when it cannot succeed."""
    found = _series()
    newest = found.newest()
    if not newest:
        raise BackupError(f"`{STANZA}` at the place holds {found.described}")
    first = next(one for one in found.backups if not one.failed)
    if wanted.moment and wanted.moment.timestamp() < first.ended:
        raise BackupError(
            f"{wanted} is before the end of the oldest backup, {moment(first.ended)}; nothing older is kept"
        )
    if DATA.is_mount():
        raise BackupError(f"{DATA} is a mount point, and cannot be exchanged; mount {DATA.parent} instead")
    if spaces := repository.tablespaces(newest):
        raise BackupError(f"the database has tablespaces ({', '.join(spaces)}), which this version does not restore")
    need_space(newest.size)
    with state.locked(_BUSY):
        pass
    say(f"{found.described}; to be restored: {wanted}")
    say(f"in {DATA} now: {_whose(found)}; it is kept beside the new")
    sessions = run("psql", "-XAtq", "-U", "postgres", "-c", _SESSIONS, check=False).stdout.splitlines()
    if sessions:
        say(f"sessions that will end: {', '.join(sessions)}")


def recover(wanted: Target) -> None:
    """Restore, verify, exchange the folders; PostgreSQL is stopped. Raises BackupError, the old data untouched."""
    begun = time.time()
    with state.locked(_BUSY):
        _archive_the_rest()
        say("fetching the backup")
        try:
            fetching = private.fetch(_NEW, wanted, archive=True)
            say(f"fetched in {fetching:.0f} s; replaying WAL up to {wanted}")
            with private.server(_NEW, archive=True, fetching=fetching) as recovered:
                _verify()
        except BackupError:
            private.discard(_NEW)
            raise
        kept = _exchange(begun)
    _report(wanted, recovered, begun, kept)


def undo() -> None:
    """Give the data before the last restore, if there were any, their place back: the new server did not run there."""
    if kept := json.loads(_RESULT.read_text())["kept"]:
        DATA.rename(_NEW)
        Path(kept).rename(DATA)


def _whose(found: Series) -> str:
    old = control(DATA).get("Database system identifier")
    if not old:
        return "no database"
    return "the same database" if old == found.system else "another database, of which these backups are not"


def _archive_the_rest() -> None:
    """Bring to the place what the old server had not archived when it ended, if it was the same database."""
    found, old = _series(), control(DATA).get("Database system identifier")
    waiting = sorted((DATA / "pg_wal/archive_status").glob("*.ready")) if old == found.system else []
    for note in waiting:
        segment = DATA / "pg_wal" / note.stem
        run("pgbackrest", f"--stanza={STANZA}", "archive-push", segment)
        note.rename(note.with_suffix(".done"))
    if waiting:
        say(f"{len(waiting)} WAL segments were not archived yet, and are now")


def _verify() -> None:
    """Look into every database of the restored server, and forget this recovery's settings."""
    for name in private.databases():
        psql("SELECT count(*) FROM pg_class", database=name, socket=SOCKET)
    for setting in psql(_RECOVERY, socket=SOCKET).splitlines():
        psql(f"ALTER SYSTEM RESET {setting}", socket=SOCKET)


def _exchange(begun: float) -> Path | None:
    """Give the new data its place; return where the old are kept."""
    kept = None
    if DATA.exists():
        kept = DATA.with_name(_OLD + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(begun)))
        DATA.rename(kept)
    _NEW.rename(DATA)
    run("sync", "-f", DATA.parent)
    return kept


def _report(wanted: Target, recovered: Recovered, begun: float, kept: Path | None) -> None:
    now = time.time()
    last = recovered.last_transaction
    result = {
        "to": str(wanted),
        "seconds": round(now - begun, 1),
        "seconds_fetching": round(recovered.seconds_fetching, 1),
        "seconds_replaying": round(recovered.seconds_replaying, 1),
        "last_transaction": last,
        "last_transaction_age_seconds": round(begun - last, 1) if last else None,
        "kept": str(kept) if kept else None,
    }
    _RESULT.write_text(json.dumps(result))
    when = f"{moment(last)}, {begun - last:.0f} s before this restore began" if last else "before the backup"
    say(f"restored and seen to run after {now - begun:.0f} s; the last transaction in it was {when}")
    if kept:
        say(f"the data before are in {kept}; delete them when nobody misses anything")


def _series() -> Series:
    found = repository.read()
    if not found:
        raise BackupError(f"the place has nothing of `{STANZA}`")
    return found
