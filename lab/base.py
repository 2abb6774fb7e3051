"""The base tree that every lab host is a copy of: Debian 13, made once and refreshed weekly."""

import contextlib
import fcntl
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from lab.system import LabError, Progress, run

CACHE = Path("/var/cache/messwarte")
_SUITE = "trixie"
_INCLUDE = "systemd,systemd-sysv,dbus,openssh-server,python3,iproute2,ca-certificates"
_FRESH_SECONDS = 7 * 86400


def base(progress: Progress) -> Path:
    """Return the base tree, made or refreshed first where needed."""
    tree = CACHE / f"base-{_SUITE}-{run(['dpkg', '--print-architecture']).stdout.strip()}"
    stamp = tree.with_suffix(".stamp")
    with _locked():
        if not stamp.exists():
            progress(f"making the base tree {tree} (Debian 13, about a minute)")
            _make(tree)
            stamp.touch()
        elif time.time() - stamp.stat().st_mtime > _FRESH_SECONDS:
            progress(f"refreshing the base tree {tree}")
            _refresh(tree)
            stamp.touch()
    return tree


def purge_base() -> None:
    """Delete the base trees; other cached things stay."""
    for path in CACHE.glob("base-*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    (CACHE / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        CACHE.rmdir()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(tree: Path) -> None:
    partial = tree.with_suffix(".partial")
    for leftover in (partial, tree):
        if leftover.exists():
            _unmount(leftover)
            shutil.rmtree(leftover)
    run(["debootstrap", "--variant=minbase", f"--include={_INCLUDE}", _SUITE, str(partial)])
    run(["systemctl", f"--root={partial}", "enable", "systemd-networkd", "ssh"])
    # A lab host lives for minutes: background jobs would only hold apt's lock.
    timers = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer")
    run(["systemctl", f"--root={partial}", "mask", *timers, "console-getty.service"])
    for key in partial.glob("etc/ssh/ssh_host_*"):
        key.unlink()
    (partial / "var/log/journal").mkdir(parents=True, exist_ok=True)
    partial.rename(tree)


def _refresh(tree: Path) -> None:
    """Upgrade a copy and let it take the tree's place; without a network the old tree serves on."""
    copy = tree.with_suffix(".partial")
    if copy.exists():
        shutil.rmtree(copy)
    run(["cp", "-a", "--reflink=auto", str(tree), str(copy)])
    shutil.copyfile("/etc/resolv.conf", copy / "etc/resolv.conf")
    try:
        run(["chroot", str(copy), "apt-get", "update", "-qq"])
        run(["chroot", str(copy), "apt-get", "-y", "-qq", "dist-upgrade"])
    except LabError:
        shutil.rmtree(copy)
        return
    shutil.rmtree(tree)
    copy.rename(tree)


def _unmount(tree: Path) -> None:
    """Release what an interrupted debootstrap left mounted below a tree."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((m for m in mounted if m.startswith(f"{tree}/")), reverse=True):
        run(["umount", "-l", point])
