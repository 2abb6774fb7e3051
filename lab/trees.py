"""Trees of Debian in the cache: each made once, whole or not at all, and refreshed weekly."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.surroundings import apt_settings, resolvers
from lab.system import BOUND, LabError, Progress, delete_tree, locked, need_root, run

CACHE = Path("/var/cache/messwarte")
_DAY = 86400
_FRESH_SECONDS = 7 * _DAY
# Own process and mount spaces: an interrupted run leaves neither processes nor mounts.
APART = (*BOUND, "unshare", "--pid", "--mount", "--fork", "--kill-child", "--")
# Some packages are not configured without /proc.
_APT_GET = (
    'mount -t proc proc "$1/proc"; tree=$1; shift; '
    'chroot "$tree" apt-get -qq "$@" </dev/null; exec chroot "$tree" apt-get clean'
)


@dataclass(frozen=True)
class Tree:
    """A tree's name in the cache, what it holds and how long making it takes, and what it is made from and how."""

    name: str
    about: str
    recipe: str
    make: Callable[[Path], None]

    @property
    def place(self) -> Path:
        """Where the tree and its stamp are kept."""
        return CACHE / f"{self.name}-{run(['dpkg', '--print-architecture']).stdout.strip()}"

    def state(self) -> str:
        """Return "missing", "old" or "" (good); the stamp, written last, holds the recipe."""
        stamp = self.place / "stamp"
        if not stamp.is_file() or stamp.read_text() != self.recipe:
            return "missing"
        return "old" if time.time() - stamp.stat().st_mtime > _FRESH_SECONDS else ""


@contextlib.contextmanager
def kept(tree: Tree, progress: Progress) -> Iterator[Path]:
    """Make or refresh a tree where needed; yield it while it is sure to stay as it is."""
    place = tree.place
    if tree.state():
        with locked(_lock(place.name)):
            state = tree.state()
            if state == "missing":
                progress(f"making the tree {place} ({tree.about})")
                _replace(tree, tree.make)
            elif state == "old":
                progress(f"refreshing the tree {place} (older than a week)")
                _refresh_if_possible(tree, progress)
    with locked(_lock(place.name), shared=True):
        if tree.state() == "missing":
            raise LabError(f"the tree {place} was taken away meanwhile; try again")
        yield place / "tree"


def purge_trees() -> None:
    """Delete all trees; other cached things stay. Running labs do not need them."""
    need_root()
    for name in sorted({path.name.removesuffix(".lock").removesuffix(".partial") for path in CACHE.glob("*-*")}):
        with locked(_lock(name)):
            for path in (CACHE / name, CACHE / f"{name}.partial"):
                delete_tree(path)
            _lock(name).unlink()
    with contextlib.suppress(OSError):
        CACHE.rmdir()


def copy(source: Path, target: Path) -> None:
    """Copy a tree, sharing its blocks where the file system can."""
    run([*BOUND, "cp", "-a", "--reflink=auto", str(source), str(target)])


def apt(tree: Path, *arguments: str) -> None:
    """Run apt-get in a tree over this machine's own network; no package starts a daemon."""
    policy, settings = tree / "usr/sbin/policy-rc.d", tree / "etc/apt/apt.conf.d/90lab"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    settings.write_text(apt_settings("127.0.0.1"))
    (tree / "etc/resolv.conf").write_text(resolvers().text("127.0.0.1"))
    run([*APART, "sh", "-ec", _APT_GET, "sh", str(tree), *arguments], timeout=900)
    policy.unlink()
    settings.unlink()


def _lock(name: str) -> Path:
    return CACHE / f"{name}.lock"


def _replace(tree: Tree, make: Callable[[Path], None]) -> None:
    """Have a tree made beside its place, and move it there whole."""
    partial = tree.place.with_name(f"{tree.place.name}.partial")
    delete_tree(partial)
    # The tree holds set-uid programs that this machine's users have no business with.
    partial.mkdir(mode=0o700)
    make(partial / "tree")
    (partial / "stamp").write_text(tree.recipe)
    delete_tree(tree.place)
    partial.rename(tree.place)


def _refresh_if_possible(tree: Tree, progress: Progress) -> None:
    def upgrade(target: Path) -> None:
        copy(tree.place / "tree", target)
        apt(target, "update", "-o", "APT::Update::Error-Mode=any")
        apt(target, "-y", "dist-upgrade")

    try:
        _replace(tree, upgrade)
    except LabError as error:
        progress(f"the tree stays as it is, the next attempt is due tomorrow: {str(error).splitlines()[0]}")
        tomorrow = time.time() - _FRESH_SECONDS + _DAY
        os.utime(tree.place / "stamp", (tomorrow, tomorrow))
