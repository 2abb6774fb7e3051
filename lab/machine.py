"""One host of a lab, with the verbs of NixOS tests; every wait is on a condition and ends with a reason."""

import os
import shlex
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import guest
from lab.guest import Guest
from lab.system import LabError, run, wait_until

_BOOT_SECONDS = 90


@dataclass(frozen=True)
class Machine:
    """A running host; commands are run by its root's shell over SSH."""

    guest: Guest
    ssh_key: Path
    known_hosts: Path

    @property
    def name(self) -> str:
        """The host's name."""
        return self.guest.name

    @property
    def address(self) -> str:
        """The host's IPv4 address."""
        return self.guest.address

    def ssh(self) -> list[str]:
        """Return the command that logs in as root."""
        options = [
            "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes",
            "-o", "ConnectTimeout=5", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
        ]  # fmt: skip
        return ["ssh", "-F", "none", "-i", str(self.ssh_key), *options, f"root@{self.address}"]

    def execute(self, command: str, timeout: float = 300) -> tuple[int, str]:
        """Run a shell command; return its exit status and output."""
        done = run([*self.ssh(), command], check=False, timeout=timeout)
        return done.returncode, done.stdout

    def succeed(self, *commands: str, timeout: float = 300) -> str:
        """Run commands that have to succeed; return the output of all."""
        output = ""
        for command in commands:
            status, printed = self.execute(command, timeout)
            if status:
                raise LabError(f"{self.name}: `{command}` ended with {status}:\n{printed}")
            output += printed
        return output

    def fail(self, *commands: str, timeout: float = 300) -> str:
        """Run commands that have to fail; return the output of all."""
        output = ""
        for command in commands:
            status, printed = self.execute(command, timeout)
            if not status:
                raise LabError(f"{self.name}: `{command}` succeeded, and should not have:\n{printed}")
            output += printed
        return output

    def wait_until_succeeds(self, command: str, timeout: float = 60) -> str:
        """Repeat a command until it succeeds; return its output."""
        return self._repeat(command, timeout, lambda status: status == 0)

    def wait_until_fails(self, command: str, timeout: float = 60) -> str:
        """Repeat a command until it fails; return its output."""
        return self._repeat(command, timeout, lambda status: status != 0)

    def wait_for_unit(self, unit: str, timeout: float = 60) -> None:
        """Wait until a unit is active; fails at once, with its journal, when it has failed."""

        def active() -> bool:
            state = self.execute(f"systemctl show --value --property ActiveState {shlex.quote(unit)}")[1].strip()
            if state == "failed":
                raise LabError(f"{self.name}: {unit} failed:\n{self.journal(unit)}")
            return state == "active"

        wait_until(active, f"{self.name}: {unit} active", timeout, 0.3)

    def wait_for_open_port(self, port: int, timeout: float = 60) -> None:
        """Wait until something accepts connections on a TCP port, on the host's address or its loopback."""
        self.wait_until_succeeds(
            f"bash -c '</dev/tcp/{self.address}/{port}' 2>/dev/null || bash -c '</dev/tcp/127.0.0.1/{port}'",
            timeout,
        )

    def wait_for_file(self, path: str, timeout: float = 60) -> None:
        """Wait until a path exists."""
        self.wait_until_succeeds(f"test -e {shlex.quote(path)}", timeout)

    def systemctl(self, arguments: str) -> tuple[int, str]:
        """Run systemctl; return its exit status and output."""
        return self.execute(f"systemctl {arguments}")

    def journal(self, unit: str, lines: int = 30) -> str:
        """Return the last lines of a unit's journal."""
        return self.execute(f"journalctl --no-pager --quiet --lines {lines} --unit {shlex.quote(unit)}")[1]

    def crash(self) -> None:
        """End the host as a power cut would."""
        guest.kill(self.guest)

    def start(self) -> None:
        """Boot a host that is off, and wait until one can log in."""
        guest.boot(self.guest)
        self.wait_until_up()

    def reboot(self) -> None:
        """Reboot in order, and wait until the host is back."""
        before = self.succeed("cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestampMonotonic")
        self.execute("systemctl reboot")
        wait_until(lambda: not self._listening(), f"{self.name} goes down", 60)
        self.wait_until_up()
        if before == self.succeed("cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestampMonotonic"):
            raise LabError(f"{self.name} did not reboot")

    def block(self) -> None:
        """Cut the host off from every network, this machine's included."""
        run(["ip", "link", "set", self.guest.interface, "down"])

    def unblock(self) -> None:
        """Give the host its network back."""
        run(["ip", "link", "set", self.guest.interface, "up"])

    def copy_to_host(self, source: Path, target: str) -> None:
        """Copy a file or folder to the host."""
        run([*self._scp(), str(source), f"root@{self.address}:{target}"])

    def copy_from_host(self, source: str, target: Path) -> None:
        """Copy a file or folder from the host."""
        run([*self._scp(), f"root@{self.address}:{source}", str(target)])

    def shell(self, *command: str) -> None:
        """Become an SSH session on the host."""
        login = self.ssh()
        os.execvp(login[0], [*login[:1], "-t", *login[1:], *command])  # noqa: S606

    def wait_until_up(self) -> None:
        """Wait until the host has booted and one can log in."""

        def booted() -> bool:
            if not guest.processes(self.guest):
                raise LabError(f"{self.name} stopped while booting; its console says:\n{guest.console(self.guest)}")
            return self._listening() and self.execute("systemctl is-active multi-user.target", 10)[0] == 0

        wait_until(booted, f"{self.name} boots", _BOOT_SECONDS)

    def _scp(self) -> list[str]:
        return ["scp", "-r", "-q", *self.ssh()[1:-1]]

    def _listening(self) -> bool:
        with socket.socket() as client:
            client.settimeout(0.5)
            return client.connect_ex((self.address, 22)) == 0

    def _repeat(self, command: str, timeout: float, good: Callable[[int], bool]) -> str:
        last = ""

        def done() -> bool:
            nonlocal last
            status, last = self.execute(command)
            return good(status)

        try:
            wait_until(done, f"{self.name}: `{command}`", timeout, 0.3)
        except LabError as error:
            raise LabError(f"{error}; it last said:\n{last}") from error
        return last
