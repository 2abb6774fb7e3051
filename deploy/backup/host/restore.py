"""Restores the database in its place, as root: stops PostgreSQL, has it recovered, and starts it again."""

import fcntl
import subprocess
import time
from pathlib import Path

from deploy.backup.host.system import BIN, UNIT, BackupError, say

# Of deploys: none may start what is stopped here.
_LOCK = Path("/run/lock/messwarte.lock")
_COMMAND = "/usr/local/sbin/messwarte-backup"
# A server that recovers from a crash takes its time.
_SECONDS = 600


def restore(arguments: list[str]) -> None:
    """Restore to what the arguments (those of `recover`) say. Raises BackupError; the database runs as before then."""
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError("a deploy or another restore is at work on this host") from None
        _as_postgres("check", *arguments)
        say(f"stopping {UNIT}")
        _systemctl("stop", UNIT)
        try:
            _as_postgres("recover", *arguments)
        except BackupError as error:
            raise BackupError(f"{error}{_start_old()}") from error
        try:
            _start()
        except BackupError as error:
            _systemctl("stop", UNIT)
            _as_postgres("undo")
            raise BackupError(f"{error}{_start_old()}") from error


def _as_postgres(*arguments: str) -> None:
    """Run a verb of ours as user postgres, its output visible. Raises BackupError."""
    command = ["runuser", "-u", "postgres", "--", _COMMAND, *arguments]
    if subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, check=False).returncode:
        raise BackupError("nothing was restored; see above")


def _start() -> None:
    _systemctl("start", UNIT)
    deadline = time.monotonic() + _SECONDS
    while subprocess.run([str(BIN / "pg_isready"), "-q"], check=False).returncode:
        if time.monotonic() > deadline:
            raise BackupError(f"{UNIT} does not answer; see: journalctl -u {UNIT}")
        time.sleep(0.1)


def _start_old() -> str:
    """Start the database as it was before, and say how that went."""
    try:
        _start()
    except BackupError as error:
        return f"\nThe database as it was before does not run either: {error}"
    return "\nThe database runs as before."


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupError(f"systemctl {' '.join(arguments)} failed: {done.stderr.strip()}")
