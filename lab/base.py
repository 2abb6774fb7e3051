"""The base tree that every lab host is a copy of: Debian 13, made once and refreshed weekly."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.surroundings import AUTHORITIES, apt_settings, authorities, resolvers
from lab.system import BOUND, LabError, Progress, delete_tree, locked, need_root, run

CACHE = Path("/var/cache/messwarte")
_SUITE = "trixie"
_INCLUDE = "systemd,systemd-sysv,dbus,openssh-server,python3,iproute2,ca-certificates"
_RECIPE = 2
_DAY = 86400
_FRESH_SECONDS = 7 * _DAY
# Own process and mount spaces: an interrupted run leaves neither processes nor mounts.
_APART = (*BOUND, "unshare", "--pid", "--mount", "--fork", "--kill-child", "--")
# A lab host lives for minutes: background jobs would only hold apt's lock.
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "console-getty.service",
)


@contextlib.contextmanager
def base(progress: Progress) -> Iterator[Path]:
    """Make or refresh the base tree where needed; yield it while it is sure to stay as it is."""
    place = CACHE / f"base-{_SUITE}-{run(['dpkg', '--print-architecture']).stdout.strip()}"
    if _state(place):
        with locked(_lock()):
            state = _state(place)
            if state == "missing":
                progress(f"making the base tree {place} (Debian 13; about a minute)")
                _replace(place, _make)
            elif state == "old":
                progress(f"refreshing the base tree {place} (older than a week)")
                _refresh_if_possible(place, progress)
    with locked(_lock(), shared=True):
        if _state(place) == "missing":
            raise LabError(f"the base tree {place} was taken away meanwhile; try again")
        yield place / "tree"


def purge_base() -> None:
    """Delete the base trees; other cached things stay. Running labs do not need them."""
    need_root()
    if not CACHE.exists():
        return
    with locked(_lock()):
        for path in CACHE.glob("base-*"):
            delete_tree(path)
        _lock().unlink()
    with contextlib.suppress(OSError):
        CACHE.rmdir()


def recipe() -> str:
    """Return what the base tree is made from; a tree of another recipe is made anew."""
    digest = hashlib.sha256(b"".join(authorities().values())).hexdigest()
    return f"{_RECIPE} {_SUITE} {_INCLUDE} {digest}\n"


def _lock() -> Path:
    return CACHE / "lock"


def _state(place: Path) -> str:
    """Return "missing", "old" or "" (good); the stamp, written last, holds the recipe."""
    stamp = place / "stamp"
    if not stamp.is_file() or stamp.read_text() != recipe():
        return "missing"
    return "old" if time.time() - stamp.stat().st_mtime > _FRESH_SECONDS else ""


def _replace(place: Path, make: Callable[[Path], None]) -> None:
    """Have a tree made beside its place, and move it there whole."""
    partial = place.with_name(f"{place.name}.partial")
    delete_tree(partial)
    # The tree holds set-uid programs that this machine's users have no business with.
    partial.mkdir(mode=0o700)
    make(partial / "tree")
    (partial / "stamp").write_text(recipe())
    delete_tree(place)
    partial.rename(place)


def _make(tree: Path) -> None:
    run([*_APART, "debootstrap", "--variant=minbase", f"--include={_INCLUDE}", _SUITE, str(tree)])
    run(["systemctl", f"--root={tree}", "enable", "systemd-networkd", "ssh"])
    run(["systemctl", f"--root={tree}", "mask", *_MASKED])
    for path in (*tree.glob("etc/ssh/ssh_host_*"), tree / "var/lib/dbus/machine-id"):
        path.unlink(missing_ok=True)
    (tree / "var/lib/dbus/machine-id").symlink_to("/etc/machine-id")
    (tree / "var/log/journal").mkdir(parents=True, exist_ok=True)
    extra = authorities()
    for name, certificate in extra.items():
        (tree / AUTHORITIES / name).write_bytes(certificate)
    if extra:
        run([*_APART, "chroot", str(tree), "update-ca-certificates"])
    # debootstrap has no package descriptions, which the first `apt-get update` would fetch.
    (tree / "etc/apt/apt.conf.d/91lab").write_text('Acquire::Languages "none";\n')
    _apt(tree, "update", "-o", "APT::Update::Error-Mode=any")


def _refresh_if_possible(place: Path, progress: Progress) -> None:
    def upgrade(tree: Path) -> None:
        run([*BOUND, "cp", "-a", "--reflink=auto", str(place / "tree"), str(tree)])
        _apt(tree, "update", "-o", "APT::Update::Error-Mode=any")
        _apt(tree, "-y", "dist-upgrade")

    try:
        _replace(place, upgrade)
    except LabError as error:
        progress(f"the base tree stays as it is, the next attempt is due tomorrow: {str(error).splitlines()[0]}")
        tomorrow = time.time() - _FRESH_SECONDS + _DAY
        os.utime(place / "stamp", (tomorrow, tomorrow))


def _apt(tree: Path, *arguments: str) -> None:
    """Run apt-get in a tree over this machine's own network; no package starts a daemon."""
    policy, settings = tree / "usr/sbin/policy-rc.d", tree / "etc/apt/apt.conf.d/90lab"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    settings.write_text(apt_settings("127.0.0.1"))
    (tree / "etc/resolv.conf").write_text(resolvers().text("127.0.0.1"))
    run([*_APART, "chroot", str(tree), "apt-get", "-qq", *arguments], timeout=900)
    run([*_APART, "chroot", str(tree), "apt-get", "clean"])
    policy.unlink()
    settings.unlink()
