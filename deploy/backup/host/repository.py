"""What lies at the backups' place, as `pgbackrest info` tells it."""

import json
import os
from dataclasses import dataclass
from typing import Any

from deploy.backup.host.system import BackupError, moment, run

STANZA = os.environ.get("PGBACKREST_STANZA", "main")
_HINT = "\nIs the secret `backup_passphrase` the one that it was made with?"
_MISSING = 1
_OTHER = 99


@dataclass(frozen=True)
class Backup:
    """A backup; `kind` is `full`, `diff` or `incr`, moments in seconds since 1970, sizes in bytes."""

    label: str
    kind: str
    begun: float
    ended: float
    size: int
    stored: int
    failed: bool


@dataclass(frozen=True)
class Series:
    """All backups of one database, the oldest first, and the identifier of its cluster."""

    system: str
    backups: tuple[Backup, ...]

    def newest(self, kinds: tuple[str, ...] = ("full", "diff", "incr")) -> Backup | None:
        """Return the newest good backup of some kinds, or None."""
        return next((one for one in reversed(self.backups) if one.kind in kinds and not one.failed), None)

    @property
    def described(self) -> str:
        """What an operator reads of it."""
        last = self.newest()
        return f"backups: {len(self.backups)}, the last of {moment(last.ended)}" if last else "WAL, but no backup"


def read() -> Series | None:
    """Return what lies at the place, or None when it has nothing of this name. Raises BackupError."""
    said = run("pgbackrest", f"--stanza={STANZA}", "--output=json", "info").stdout
    try:
        # What a wrong passphrase makes of a file is quoted as it is, control characters included.
        found: dict[str, Any] = json.loads(said, strict=False)[0]
    except ValueError:
        raise BackupError(f"the place of the backups cannot be read.{_HINT}") from None
    status = found["status"]
    if status["code"] == _OTHER:
        said = found["repo"][0]["status"]["message"].splitlines()[0]
        unreadable = any(word in said for word in ("Crypto", "unable to load info file"))
        raise BackupError(f"the place of the backups cannot be read:\n{said}{_HINT if unreadable else ''}")
    if status["code"] == _MISSING or not found["db"]:
        return None
    system = str(found["db"][-1]["system-id"])
    return Series(system, tuple(_backup(one) for one in found["backup"]))


def tablespaces(backup: Backup) -> list[str]:
    """Return the names of the tablespaces in a backup."""
    shown = run("pgbackrest", f"--stanza={STANZA}", "--output=json", f"--set={backup.label}", "info").stdout
    (found,) = json.loads(shown)[0]["backup"]
    return [one["name"] for one in found.get("tablespace") or ()]


def _backup(found: dict[str, Any]) -> Backup:
    sizes, stamps = found["info"], found["timestamp"]
    return Backup(
        label=found["label"],
        kind=found["type"],
        begun=stamps["start"],
        ended=stamps["stop"],
        size=sizes["size"],
        stored=sizes["repository"]["delta"],
        failed=bool(found.get("error")),
    )
