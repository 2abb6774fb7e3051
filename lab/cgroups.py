"""Where systemd does not run this machine, each host gets control groups of its own, as a unit of systemd would.

Hosts in one group would share the groups of their services: each could end the other's processes, and waits for them.
"""

import contextlib
import os
from pathlib import Path

from lab.system import LabError, wait_until

_MOUNT = Path("/sys/fs/cgroup")


def make(name: str) -> list[Path]:
    """Make a host's groups; a process enters one by writing its number into the group's `cgroup.procs`."""
    groups = [hierarchy / name for hierarchy in _hierarchies()]
    for group in groups:
        try:
            group.mkdir(exist_ok=True)
        except OSError as error:
            raise LabError(
                f"cannot make the control group {group}, which a lab host needs: {error.strerror}"
            ) from error
    return groups


def remove(pattern: str) -> None:
    """Take away the groups of a name or pattern, whose processes have been killed."""
    groups = [group for hierarchy in _hierarchies() for group in hierarchy.glob(pattern)]
    wait_until(lambda: all(map(_removed, groups)), f"the control groups {pattern} are empty", 30)


def _hierarchies() -> list[Path]:
    """Return the mount points that systemd uses: of version 2 alone, or of both where version 1 has the controllers."""
    if (_MOUNT / "cgroup.controllers").exists():
        return [_MOUNT]
    return [path for name in ("unified", "systemd") if (path := _MOUNT / name).is_dir()]


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106
    return not group.exists()
