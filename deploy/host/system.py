"""Asking and changing the host through its own tools: shell commands, systemd, dpkg."""

import functools
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

# A paragraph of dpkg's records; one that waits for triggers works already.
_INSTALLED = re.compile(
    r"^Package: (\S+)\n(?:(?:Essential|Protected): .*\n)*Status: \S+ \S+ (?:installed|triggers-\w+)$", re.MULTILINE
)

# Where units are put by the host's people and by us.
UNITS = Path("/etc/systemd/system")
_PACKAGED = "usr/lib/systemd/system/"

# Properties of a unit.
_STATE, _FILES = ("ActiveState", "UnitFileState"), ("FragmentPath", "DropInPaths")
# When a program of it was started, when it was ready, and when it last changed between ready, reloading and down.
_MOMENTS = ("ExecMainStartTimestamp", "ActiveEnterTimestamp", "StateChangeTimestamp")
_SHOWN_MOMENT = "%a %Y-%m-%d %H:%M:%S.%f UTC"


class ApplyError(Exception):
    """Why a component could not be brought to what is wanted."""


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


def must(command: str, cwd: Path | None = None) -> str:
    """Run a shell command that has to succeed; return its output. Raises ApplyError with the end of it."""
    run = shell(command, cwd)
    if run.returncode:
        shown = textwrap.shorten(command.strip().splitlines()[0], 120, placeholder=" ...")
        raise ApplyError(f"`{shown}` failed:\n{run.stdout.strip()[-3000:]}")
    return run.stdout


def unit_states(units: list[str]) -> dict[str, str]:
    """Return `ActiveState/UnitFileState` of each unit; one that has no file there is not enabled."""
    return {unit: state_of(shown) for unit, shown in show_all(units, *_STATE).items()}


def show_all(units: list[str], *properties: str) -> dict[str, dict[str, str]]:
    """Return properties of units, empty where they have none."""
    if not units:
        return {}
    run = shell(f"systemctl show --timestamp=us+utc --property={','.join(('Id', *properties))} {' '.join(units)}")
    found = {}
    for unit, block in zip(units, run.stdout.strip().split("\n\n"), strict=False):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[unit] = {name: fields.get(name, "") for name in properties}
    return found


def show(unit: str, *properties: str) -> dict[str, str]:
    """Return properties of a unit, empty where it has none."""
    return show_all([unit], *properties)[unit]


def state_of(shown: dict[str, str]) -> str:
    """Return `ActiveState/UnitFileState` of the properties of a unit."""
    return f"{shown['ActiveState']}/{shown['UnitFileState'] or 'not enabled'}"


def unit_files(unit: str) -> list[str]:
    """Return the files that define a unit, strangers' drop-ins included, those for every unit of the host left out."""
    return files_of(unit, show(unit, *_FILES))


def files_of(unit: str, shown: dict[str, str]) -> list[str]:
    """Return the files that define a unit, by its properties."""
    # systemd quotes what has a space in it.
    paths = shlex.split(" ".join(shown[name] for name in _FILES))
    return [path for path in paths if Path(path).parent.name != f"{unit.rpartition('.')[2]}.d"]


class FoundUnit(NamedTuple):
    """A unit's state, the files that define it, and when it began and was last reloaded (seconds since 1970, or 0)."""

    state: str
    files: list[str]
    began: float
    reloaded: float


def look_at_units(units: list[str]) -> dict[str, FoundUnit]:
    """Return how units are; asked for in one call, however many they are."""
    found = {}
    for unit, fields in show_all(units, *_STATE, *_FILES, *_MOMENTS).items():
        began, ready, changed = (_seconds(fields[name]) for name in _MOMENTS)
        # What starts reads its files long before it is ready; a reload changes the state of what is.
        found[unit] = FoundUnit(state_of(fields), files_of(unit, fields), began, changed if changed != ready else 0)
    return found


def _seconds(shown: str) -> float:
    """Return a moment as systemd shows it in seconds since 1970; 0 where it never came."""
    return datetime.strptime(shown, _SHOWN_MOMENT).replace(tzinfo=UTC).timestamp() if "UTC" in shown else 0


def enabled_by(unit: str) -> list[str]:
    """Return what starts a unit at a boot because it is enabled, such as multi-user.target."""
    return sorted(path.parent.name for kind in ("wants", "requires") for path in UNITS.glob(f"*.{kind}/{unit}"))


def not_as_packaged(paths: Iterable[str]) -> dict[str, str]:
    """Return those of some files of units whose content is not what dpkg has noted, and their packages."""
    noted = {path: _packaged_units()[path] for path in paths if path in _packaged_units()}
    return {
        path: package for path, (digest, package) in noted.items() if not Path(path).exists() or _md5(path) != digest
    }


def _md5(path: str) -> str:
    """Return the hash by which dpkg knows a file."""
    return hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest()


@functools.cache
def _packaged_units() -> dict[str, tuple[str, str]]:
    """Return hash and package of all files of units that packages brought."""
    found = {}
    for record in Path("/var/lib/dpkg/info").glob("*.md5sums"):
        sums = record.read_text(encoding="utf-8", errors="replace")
        if _PACKAGED in sums:
            for digest, path in (line.split(maxsplit=1) for line in sums.splitlines() if _PACKAGED in line):
                found[f"/{path}"] = digest, record.stem
    return found


def bring_back(path: str, package: str) -> None:
    """Take one file anew out of its package, of the version that is installed. Raises ApplyError."""
    with tempfile.TemporaryDirectory() as folder:
        version = must(f"dpkg-query --show --showformat='${{Version}}' {package}")
        try:
            must(f"apt-get download -q -o APT::Sandbox::User=root {package}={version}", Path(folder))
        except ApplyError as error:
            raise ApplyError(f"{path} was changed; put it back, or reinstall its package {package}: {error}") from error
        must(f"dpkg-deb --fsys-tarfile *.deb | tar --extract --directory=/ .{path}", Path(folder))


def set_aside(path: Path) -> None:
    """Rename a file to a name that nothing has, and that no daemon reads."""
    names = (path.with_name(f"{path.name}.by-hand{end}") for end in ("", *(f".{number}" for number in range(2, 1000))))
    path.rename(next(name for name in names if not name.exists()))


def journal(unit: str) -> str:
    """Return the last lines of a unit's journal."""
    return shell(f"journalctl --no-pager --quiet --lines 15 --unit {unit}").stdout


def installed_packages() -> set[str]:
    """Return the names of the Debian packages that are installed, by dpkg's own records, which is quick.

    Those that were removed and left their configuration are not.
    """
    return set(_INSTALLED.findall(Path("/var/lib/dpkg/status").read_text(encoding="utf-8")))


def missing_packages(packages: list[str]) -> list[str]:
    """Return the Debian packages that are not installed."""
    there = installed_packages() if packages else set()
    return [name for name in packages if name not in there]
