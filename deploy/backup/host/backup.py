"""Enrolling a database at its place, and making backups."""

import time
from typing import Any

from deploy.backup.host import repository, state
from deploy.backup.host.repository import STANZA, Series
from deploy.backup.host.system import DATA, BackupError, control, moment, psql, run, say

_TYPES = {"full": "full", "differential": "diff"}
_FAILING = (
    "SELECT format('WAL is not archived since %s (%s)', last_failed_time, last_failed_wal) FROM pg_stat_archiver "
    "WHERE last_failed_time > coalesce(last_archived_time, '-infinity')"
)


def enroll(place: str) -> None:
    """Give this host's database its place, unless another's backups lie there. Raises BackupError."""
    remembered = state.load()
    found, mine = repository.read(), control(DATA)["Database system identifier"]
    if found and found.system != mine:
        raise BackupError(_another(found, mine))
    here = {"place": place, "name": STANZA, "system": mine}
    if not found and _is_known(remembered, here):
        raise BackupError(
            f"{place} has nothing of `{STANZA}` any more, where this database had backups: is it mounted, and the "
            "right one? To begin anew there, give the series a new name: `backup: {name: ...}`"
        )
    if not found:
        run("pgbackrest", f"--stanza={STANZA}", "stanza-create")
    run("pgbackrest", f"--stanza={STANZA}", "check")
    if not _is_known(remembered, here):
        remembered["enrolled"] = here | {"at": time.time()}
    _remember(remembered)


def need_backup() -> None:
    """Raise BackupError when the place has no good backup since this host's database got it.

    Between older ones there, of a lost host or from before another place was tried, and now WAL may be missing.
    """
    found, enrolled = repository.read(), state.load()["enrolled"]
    newest = found.newest() if found else None
    if not newest or not enrolled or newest.ended < enrolled["at"]:
        raise BackupError(f"the place has no backup of `{STANZA}` yet")


def make(kind: str) -> None:
    """Make a backup, `full` or `differential`. Raises BackupError, after what failed is in the metrics."""
    with state.locked():
        try:
            say(
                run(
                    "pgbackrest", f"--stanza={STANZA}", f"--type={_TYPES[kind]}", "--log-level-console=info", "backup"
                ).stdout
            )
        except BackupError:
            remembered = state.load()
            part = remembered["backups"][kind]
            part |= {"failed": 1, "failures": part["failures"] + 1}
            state.save(remembered)
            raise
        remembered = state.load()
        remembered["backups"][kind]["failed"] = 0
        _remember(remembered)


def ready() -> None:
    """Raise BackupError when WAL is not archived."""
    if failing := psql(_FAILING):
        raise BackupError(failing)


def show() -> None:
    """Print what can be restored."""
    found = repository.read()
    if not found:
        raise BackupError(f"the place has no backups of `{STANZA}`")
    for one in found.backups:
        what = "damaged" if one.failed else f"{one.size // 2**20} MB"
        say(f"{one.kind:4}  {moment(one.begun)} to {moment(one.ended)}  {what}")
    say(f"{found.described}; any moment since the end of the first can be restored")


def _is_known(remembered: dict[str, Any], here: dict[str, str]) -> bool:
    return {key: (remembered["enrolled"] or {}).get(key) for key in here} == here


def _remember(remembered: dict[str, Any]) -> None:
    """Take what the place says of the newest backups, which is right on a new host, too."""
    found = repository.read()
    for kind, types in state.KINDS.items():
        if found and (newest := found.newest(types)):
            remembered["backups"][kind] |= {
                "last_success_timestamp_seconds": newest.ended,
                "last_duration_seconds": newest.ended - newest.begun,
                "last_size_bytes": newest.size,
                "last_stored_bytes": newest.stored,
            }
    state.save(remembered)


def _another(found: Series, mine: str) -> str:
    return (
        f"the place holds `{STANZA}` of another database ({found.described}; its system identifier is {found.system}, "
        f"that of the database on this host is {mine}). If that database is lost, bring it back with "
        "`./messwarte restore`; if a new one is wanted, give its series a new name: `backup: {name: ...}`"
    )
