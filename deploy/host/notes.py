"""What is known on a host about each component: the note of what was applied, written last."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

ETC = Path("/etc/messwarte")
NOTES = Path("/var/lib/messwarte/applied")
WANTED = Path("/var/lib/messwarte/wanted.json")
APPS = Path("/opt/messwarte")
LOCK = Path("/run/lock/messwarte.lock")


def note_path(name: str) -> Path:
    """Return where a component's note lies."""
    return NOTES / f"{name}.json"


def read_note(name: str) -> dict[str, Any] | None:
    """Return a component's note, or None when its last deploy did not finish."""
    note = read_begun(name)
    return note if note.get("digest") else None


def read_begun(name: str) -> dict[str, Any]:
    """Return what is known of a component, also when its last deploy did not finish; empty when nothing is."""
    try:
        return dict(json.loads(note_path(name).read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def applied() -> list[str]:
    """Return the names of all components whose deploy was begun here."""
    return sorted(path.name for path in ETC.glob("*") if path.is_dir())


def wanted() -> list[str]:
    """Return the names of the components that belong here, in the order in which they need each other."""
    return list(json.loads(WANTED.read_text())) if WANTED.exists() else []


def fingerprint(path: Path) -> str:
    """Return hash, mode and owner of a file, or what a link points to; empty when it is absent."""
    if path.is_symlink():
        return f"link {path.readlink()}"
    try:
        status = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
    return f"{digest} {status.st_mode & 0o7777:o} {status.st_uid}:{status.st_gid}"


def shell(command: str, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a shell command; standard error is part of the output, the caller looks at the status."""
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
    )


def probe(command: str) -> str:
    """Return a hash of what a probe prints, so that state which is no file can be compared."""
    run = shell(command)
    return hashlib.sha256(f"{run.returncode} {run.stdout}".encode()).hexdigest()


def unit_states(units: list[str]) -> dict[str, str]:
    """Return `ActiveState/UnitFileState` of each unit."""
    if not units:
        return {}
    run = shell(f"systemctl show --property=Id,ActiveState,UnitFileState {' '.join(units)}")
    states = {}
    for unit, block in zip(units, run.stdout.strip().split("\n\n"), strict=False):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        states[unit] = f"{fields.get('ActiveState')}/{fields.get('UnitFileState')}"
    return states


def show(unit: str, *properties: str) -> dict[str, str]:
    """Return properties of a unit, empty where it has none."""
    run = shell(f"systemctl show --property={','.join(properties)} {unit}")
    found = dict(line.split("=", 1) for line in run.stdout.splitlines() if "=" in line)
    return {name: found.get(name, "") for name in properties}


def missing_packages(packages: list[str]) -> list[str]:
    """Return the Debian packages that are not installed (by dpkg's file lists, which is quick)."""
    info = Path("/var/lib/dpkg/info")
    return [name for name in packages if not (info / f"{name}.list").exists() and not [*info.glob(f"{name}:*.list")]]
