"""A restored cluster that nobody else sees: on a socket of its own, without TCP, archiving nothing."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from deploy.backup.host.repository import STANZA
from deploy.backup.host.system import BIN, STATE, BackupError, control, psql, run

SOCKET = STATE / "private"
_LOG = SOCKET / "log"
# What WAL may need room for, by the name that pg_controldata gives it.
_ROOM = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}
# With `archive_mode = on` and no command, what has to be archived is noted and waits for the real server.
_CONFIGURATION = f"""\
listen_addresses = ''
unix_socket_directories = '{SOCKET}'
hba_file = '{SOCKET}/hba.conf'
ident_file = '{SOCKET}/ident.conf'
shared_buffers = 128MB
hot_standby = off
archive_command = ''
autovacuum = off
jit = off
lc_messages = 'C'
log_timezone = 'UTC'
log_min_messages = 'info'
"""
_LAST = re.compile(r"last completed transaction was at log time (.+)")
_REDONE = re.compile(r"redo done at ([0-9A-F]+)/([0-9A-F]+)")


@dataclass(frozen=True)
class Target:
    """Where recovery ends: a moment (seconds since 1970), or the end of the archive; along which timeline."""

    moment: datetime | None = None
    timeline: int | None = None

    def __str__(self) -> str:
        """Return what an operator reads."""
        return self.moment.isoformat(sep=" ") if self.moment else "the last archived WAL"

    def options(self) -> list[str]:
        """Return pgBackRest's options."""
        found = ["--type=default"]
        if self.moment:
            found = ["--type=time", f"--target={self.moment.isoformat(sep=' ')}", "--target-action=promote"]
        return [*found, *([f"--target-timeline={self.timeline}"] if self.timeline else [])]


@dataclass(frozen=True)
class Recovered:
    """How far recovery came: time of the last transaction (None: none since the backup), and the last position."""

    last_transaction: float | None
    position: int
    seconds_fetching: float
    seconds_replaying: float


def fetch(folder: Path, target: Target, *, archive: bool) -> float:
    """Bring a backup into a new folder; return the seconds it took. Raises BackupError."""
    discard(folder)
    run("mkdir", "-m", "700", folder)
    begun = time.monotonic()
    mode = [] if archive else ["--archive-mode=off"]
    run("pgbackrest", "restore", f"--stanza={STANZA}", f"--pg1-path={folder}", *target.options(), *mode)
    return time.monotonic() - begun


@contextlib.contextmanager
def server(folder: Path, *, archive: bool, fetching: float) -> Iterator[Recovered]:
    """Run a server on a restored folder until the block ends; recovery is over when it begins. Raises BackupError."""
    shutil.rmtree(SOCKET, ignore_errors=True)
    run("mkdir", "-m", "700", SOCKET)
    room = "".join(f"{name} = {value}\n" for key, name in _ROOM.items() if (value := control(folder).get(key)))
    texts = {
        "postgresql.conf": f"{_CONFIGURATION}archive_mode = {'on' if archive else 'off'}\n{room}",
        "hba.conf": "local all postgres peer\n",
        "ident.conf": "",
    }
    for name, text in texts.items():
        (SOCKET / name).write_text(text)
        (SOCKET / name).chmod(0o644)
    begun = time.monotonic()
    with _LOG.open("wb") as log:
        command = [str(BIN / "postgres"), "-D", str(folder), "-c", f"config_file={SOCKET}/postgresql.conf"]
        postgres = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(postgres)
        yield _recovered(fetching, time.monotonic() - begun)
    finally:
        _stop(postgres)
        shutil.rmtree(SOCKET, ignore_errors=True)


def discard(folder: Path) -> None:
    """Delete a restored folder, and end the server that a killed run may have left on it."""
    if (folder / "postmaster.pid").exists():
        run(BIN / "pg_ctl", "-D", folder, "-m", "immediate", "stop", check=False)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise BackupError(f"{folder} cannot be deleted")


def databases() -> list[str]:
    """Return the names of the databases of the private server that one can connect to."""
    return psql("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1", socket=SOCKET).splitlines()


def _wait(postgres: subprocess.Popen[bytes]) -> None:
    while run(BIN / "pg_isready", "-q", "-h", SOCKET, check=False).returncode:
        if postgres.poll() is not None:
            raise BackupError(f"the restored server does not run:\n{_explained(_LOG.read_text(errors='replace'))}")
        time.sleep(0.1)


def _explained(log: str) -> str:
    hint = ""
    if "recovery ended before configured recovery target was reached" in log:
        last = _LAST.search(log)
        hint = (
            f"\nThe archive ends before that moment{f', at {last[1]}' if last else ''}; take an earlier one, or latest."
        )
    return log[-2000:].strip() + hint


def _recovered(fetching: float, replaying: float) -> Recovered:
    log = _LOG.read_text(errors="replace")
    last, redone = _LAST.findall(log), _REDONE.findall(log)
    if not redone:
        raise BackupError(f"nothing was recovered:\n{log[-2000:]}")
    high, low = (int(part, 16) for part in redone[-1])
    moment = datetime.fromisoformat(last[-1]).timestamp() if last else None
    return Recovered(moment, (high << 32) + low, fetching, replaying)


def _stop(postgres: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGINT, 120), (signal.SIGQUIT, 30), (signal.SIGKILL, 30)):
        if postgres.poll() is None:
            os.kill(postgres.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                postgres.wait(seconds)
