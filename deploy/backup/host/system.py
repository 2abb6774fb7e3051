"""What backups, restores and drills ask of the database host; all but `restore` run as user postgres."""

import os
import subprocess
import time
from pathlib import Path

BIN = Path("/usr/lib/postgresql/17/bin")
DATA = Path("/var/lib/postgresql/17/main")
UNIT = "postgresql@17-main.service"
STATE = Path("/var/lib/messwarte-backup")


class BackupError(Exception):
    """Why a backup, a restore or a drill came to nothing."""


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program. Raises BackupError with the end of what it said when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BackupError(f"`{' '.join(map(str, command[:2]))}` failed ({done.returncode}):\n{said}")
    return done


def psql(sql: str, *, database: str = "postgres", socket: str | Path = "/var/run/postgresql") -> str:
    """Return what a query prints, unaligned. Raises BackupError."""
    options = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(socket), "-U", "postgres", "-d", database]
    return run("psql", *options, "-c", sql).stdout.strip()


def control(data: Path) -> dict[str, str]:
    """Return what pg_controldata says of a data folder; empty when it is none."""
    if not (data / "global/pg_control").exists():
        return {}
    shown = run(BIN / "pg_controldata", "-D", data).stdout
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in shown.splitlines())}


def say(line: str) -> None:
    """Print a line of progress; nobody has to be there any more who reads it."""
    try:
        print(line, flush=True)  # noqa: T201
    except OSError:
        # Whoever started this lost the connection; a restore goes on all the same.
        _to_nowhere()


def moment(seconds: float) -> str:
    """Return a moment as people read it, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(seconds))


def _to_nowhere() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
