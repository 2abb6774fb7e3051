"""A host's root tree and its systemd-nspawn process."""

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import cgroups, units
from lab.network import Network, tag
from lab.surroundings import take_over
from lab.system import LabError, delete_tree, run, wait_until
from lab.trees import copy

ROOTS = Path("/var/lib/messwarte/labs")
_NSPAWN = Path("/run/systemd/nspawn")
_LINKS = Path("/sys/class/net")
_MARK = "MESSWARTE_LAB_HOST"
# nspawn ends with this when its guest reboots: only then it is started again.
_REBOOTS = 133
_SUPERVISOR = (
    f'for group in $GROUPS; do echo $$ >"$group/cgroup.procs"; done; while "$@"; test $? -eq {_REBOOTS}; do :; done'
)
_NETWORK = """\
[Match]
Name=host0

[Network]
Address={address}/24
Gateway={gateway}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
_SSHD = "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\n"


@dataclass(frozen=True)
class Guest:
    """One host of a lab, running or not."""

    name: str
    number: int
    network: Network
    log: Path

    @property
    def root(self) -> Path:
        """The host's root tree."""
        return ROOTS / self.network.lab / self.name

    @property
    def address(self) -> str:
        """The host's IPv4 address."""
        return self.network.address(self.number)

    @property
    def machine(self) -> str:
        """nspawn's name for it, short enough for an interface name to hold it whole."""
        return f"{_machines(self.network.lab)}{self.number}"

    @property
    def interface(self) -> str:
        """This machine's end of the host's network cable."""
        return f"vb-{self.machine}"


def make_room(lab: str) -> None:
    """Make the folder of a lab's trees.

    ext4 searches long for an inode near recently deleted ones, as an earlier lab's are: with the flag of a top
    directory each new name below gets a place of its own, and copying a tree takes half a second instead of seven.
    """
    (ROOTS / lab).mkdir()
    with contextlib.suppress(LabError):
        run(["chattr", "+T", str(ROOTS / lab)], check=False)


def prepare(guest: Guest, base: Path, public_key: str, hosts: Mapping[str, str]) -> str:
    """Make the root tree from the base; return the host's public SSH key."""
    partial = guest.root.with_name(f".{uuid.uuid4().hex}")
    copy(base, partial)
    partial.rename(guest.root)
    key = guest.root / "etc/ssh/ssh_host_ed25519_key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", guest.name, "-f", str(key)])
    known = "".join(f"{address}\t{name}\n" for name, address in hosts.items())
    texts = {
        "etc/hostname": f"{guest.name}\n",
        "etc/machine-id": f"{uuid.uuid4().hex}\n",
        "etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{known}",
        # Sorts before systemd's own 80-container-host0.network, which would ask for an address.
        "etc/systemd/network/10-lab.network": _NETWORK.format(address=guest.address, gateway=guest.network.gateway),
        "etc/ssh/sshd_config.d/lab.conf": _SSHD,
        "root/.ssh/authorized_keys": public_key,
    }
    for path, text in texts.items():
        target = guest.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(text)
    (guest.root / "root/.ssh").chmod(0o700)
    take_over(guest.root, guest.network.gateway)
    return key.with_suffix(".pub").read_text()


def boot(guest: Guest) -> None:
    """Start the host in the background, outside of this session; it is started again when it reboots."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb"}
    if units.in_charge():
        start = units.start(_unit(guest.machine), f"Messwarte lab host {guest.root}", guest.log, _REBOOTS)
    else:
        start = ["setsid", "--fork", "sh", "-c", _SUPERVISOR, "messwarte-lab"]
        environment["GROUPS"] = " ".join(map(str, cgroups.make(_group(guest.machine))))
    with guest.log.open("ab") as log:
        subprocess.run(
            [*start, *_nspawn(guest)],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
        )
    wait_until(lambda: runs(guest), f"{guest.name} starts", 10)


def runs(guest: Guest) -> bool:
    """Say whether the host is on, or about to be started again."""
    return bool(processes(guest.root)) or units.active(_unit(guest.machine))


def kill(guest: Guest) -> None:
    """End every process of the host at once, its supervisor included, and wait until its cable is gone."""
    units.stop(_unit(guest.machine))
    _kill(guest.root, guest.interface)
    cgroups.remove(_group(guest.machine))
    _forget(guest.machine, guest.root)


def remove(lab: str) -> None:
    """End every host of a lab and delete their trees; the lab's name is all that this needs to know."""
    roots = ROOTS / lab
    units.stop(_unit(f"{_machines(lab)}*"))
    _kill(roots, f"vb-{_machines(lab)}*")
    cgroups.remove(_group(f"{_machines(lab)}*"))
    for link in _NSPAWN.glob(f"*/{_machines(lab)}*"):
        _forget(link.name, None)
    for root in roots.glob("*/"):
        _forget("", root)
    delete_tree(roots)


def processes(root: Path) -> list[int]:
    """Return the supervisors, nspawns and inits of the hosts whose trees are at or below a path.

    They are found by a mark in their arguments or environment: nspawn's end does not end the guest's init, and
    whoever cleans up after a killed run has no list of processes.
    """
    mark = f"{_MARK}={root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                texts = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
                if any(rest == b"" or rest.startswith(b"/") for rest in _after(mark, texts)):
                    found.append(int(entry.name))
    return found


def last_words(guest: Guest) -> str:
    """Return the end of what the host printed and of its journal, which outlives it."""
    printed = guest.log.read_text(errors="replace")[-1500:] if guest.log.exists() else ""
    journal = run(["journalctl", f"--directory={guest.root}/var/log/journal", "--no-pager", "--lines=15"], check=False)
    return f"{printed.strip()}\n{journal.stdout.strip()}"


def _nspawn(guest: Guest) -> list[str]:
    return [
        "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={guest.root}",
        f"--machine={guest.machine}", f"--hostname={guest.name}", "--network-veth",
        f"--network-bridge={guest.network.bridge}", f"--setenv={_MARK}={guest.root}", "--resolv-conf=off",
        "--timezone=off", "--link-journal=no", "--console=read-only", "--boot",
    ]  # fmt: skip


def _unit(machine: str) -> str:
    return f"messwarte-lab-{machine}.service"


def _group(machine: str) -> str:
    return f"messwarte-lab-{machine}"


def _machines(lab: str) -> str:
    return f"mw{tag(lab)}h"


def _after(mark: bytes, texts: bytes) -> list[bytes]:
    """Return what follows the mark in each text of /proc that holds it; an empty rest is the whole path."""
    return [text.partition(mark)[2] for text in texts.split(b"\0") if mark in text]


def _kill(root: Path, links: str) -> None:
    def gone() -> bool:
        pids = processes(root)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until(gone, f"the processes of {root} end", 30)
    # A connection that nobody ended keeps the kernel from taking them away for minutes.
    for link in _LINKS.glob(links):
        run(["ip", "link", "delete", link.name], check=False)


def _forget(machine: str, root: Path | None) -> None:
    """Delete what a killed nspawn leaves in /run: its folders, and the lock named after the tree's inode."""
    for path in _NSPAWN.glob(f"*/{machine}") if machine else ():
        delete_tree(path)
    if root and root.exists():
        status = root.stat()
        for path in _NSPAWN.glob(f"locks/inode-{status.st_dev}:{status.st_ino}"):
            path.unlink()
