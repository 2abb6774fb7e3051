"""The base tree that every lab host is a copy of: Debian 13."""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path

from lab.surroundings import AUTHORITIES, authorities
from lab.system import Progress, run
from lab.trees import APART, Tree, apt, kept

_SUITE = "trixie"
_INCLUDE = "systemd,systemd-sysv,dbus,openssh-server,python3,iproute2,ca-certificates"
_RECIPE = 2
# A lab host lives for minutes: background jobs would only hold apt's lock.
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "console-getty.service",
)


def base(progress: Progress) -> AbstractContextManager[Path]:
    """Make or refresh the base tree where needed; yield it while it is sure to stay as it is."""
    return kept(Tree(f"base-{_SUITE}", "Debian 13; about a minute", recipe(), _make), progress)


def recipe() -> str:
    """Return what the base tree is made from; a tree of another recipe is made anew."""
    digest = hashlib.sha256(b"".join(authorities().values())).hexdigest()
    return f"{_RECIPE} {_SUITE} {_INCLUDE} {digest}\n"


def _make(tree: Path) -> None:
    run([*APART, "debootstrap", "--variant=minbase", f"--include={_INCLUDE}", _SUITE, str(tree)])
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
        run([*APART, "chroot", str(tree), "update-ca-certificates"])
    # debootstrap has no package descriptions, which the first `apt-get update` would fetch.
    (tree / "etc/apt/apt.conf.d/91lab").write_text('Acquire::Languages "none";\n')
    apt(tree, "update", "-o", "APT::Update::Error-Mode=any")
