"""A host's root tree and its systemd-nspawn process."""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from lab.network import Network
from lab.system import run, wait_until

ROOTS = Path("/var/lib/messwarte/labs")
_REBOOT = 133
_MARK = "MESSWARTE_LAB_HOST"


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
        return f"mw{self.network.tag}h{self.number}"

    @property
    def interface(self) -> str:
        """This machine's end of the host's network cable."""
        return f"vb-{self.machine}"


def prepare(guest: Guest, base: Path, public_key: str, hosts: dict[str, str]) -> str:
    """Make the root tree from the base; return the host's public SSH key."""
    guest.root.parent.mkdir(parents=True, exist_ok=True)
    run(["cp", "-a", "--reflink=auto", str(base), str(guest.root)])
    key = guest.root / "etc/ssh/ssh_host_ed25519_key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", guest.name, "-f", str(key)])
    texts = {
        "etc/hostname": f"{guest.name}\n",
        "etc/machine-id": f"{uuid.uuid4().hex}\n",
        "etc/hosts": "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in hosts.items()),
        "etc/resolv.conf": _nameservers(),
        # Sorts before systemd's own 80-container-host0.network, which would ask for an address.
        "etc/systemd/network/10-lab.network": f"[Match]\nName=host0\n\n[Network]\nAddress={guest.address}/24\n"
        f"Gateway={guest.network.gateway}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
        "etc/ssh/sshd_config.d/lab.conf": "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\n",
        "root/.ssh/authorized_keys": public_key,
    }
    for path, text in texts.items():
        target = guest.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(text)
    (guest.root / "root/.ssh").chmod(0o700)
    return key.with_suffix(".pub").read_text()


def boot(guest: Guest) -> None:
    """Start the host in the background; a small supervisor starts it again when it reboots."""
    command = [sys.executable, "-P", "-m", "lab.supervise", str(guest.log), *_nspawn(guest)]
    root = str(Path(__file__).resolve().parent.parent)
    subprocess.Popen(
        command,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": root},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: bool(processes(guest)), f"{guest.name} starts", 10)


def kill(guest: Guest) -> None:
    """End every process of the host, its supervisor first, so that nothing starts it again."""
    for pid in processes(guest):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_until(lambda: not processes(guest) and not _link_exists(guest), f"{guest.name} ends", 30)


def remove(guest: Guest) -> None:
    """End the host and delete its root tree."""
    kill(guest)
    if guest.root.exists():
        run(["chattr", "-R", "-f", "-i", str(guest.root)], check=False)
        shutil.rmtree(guest.root)


def processes(guest: Guest) -> list[int]:
    """Return the host's supervisor, nspawn and init, oldest first.

    They are found by a mark in their arguments or environment: nspawn's end does not end the guest's init, and
    whoever cleans up after a killed run has no list of processes.
    """
    mark = f"{_MARK}={guest.root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                texts = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if any(text.endswith(mark) for text in texts.split(b"\0")):
                found.append(int(entry.name))
    return sorted(found)


def console(guest: Guest) -> str:
    """Return the end of what the host printed while booting."""
    return guest.log.read_text(errors="replace")[-2000:] if guest.log.exists() else "(nothing)"


def supervise(log: Path, command: list[str]) -> int:
    """Run nspawn until it ends for another reason than a reboot of the guest."""
    while True:
        with log.open("ab") as out:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False).returncode
        if status != _REBOOT:
            return status


def _nspawn(guest: Guest) -> list[str]:
    command = [
        "systemd-nspawn", "--quiet", "--register=no", f"--directory={guest.root}", f"--machine={guest.machine}",
        f"--hostname={guest.name}", "--network-veth", f"--network-bridge={guest.network.bridge}",
        f"--setenv={_MARK}={guest.root}", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe", "--boot",
    ]  # fmt: skip
    if Path("/run/systemd/system").exists():
        scope = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", "-p", "Delegate=yes"]
        return [*scope, *command[:3], "--keep-unit", *command[3:]]
    return [*command[:3], "--keep-unit", *command[3:]]


def _link_exists(guest: Guest) -> bool:
    return Path("/sys/class/net", guest.interface).exists()


def _nameservers() -> str:
    """Return resolver lines that work in the guest: a resolver on this machine's loopback would not."""
    for path in (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")):
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line.startswith("nameserver")]
            usable = [line for line in lines if not line.split()[1].startswith(("127.", "::1"))]
            if usable:
                return "\n".join(usable) + "\n"
    return "nameserver 9.9.9.9\n"
