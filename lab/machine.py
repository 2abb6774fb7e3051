"""One host of a lab, with the verbs of NixOS tests; every wait is on a condition and ends with a reason."""

import os
import shlex
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import guest
from lab.guest import Guest
from lab.system import LabError, LabTimeoutError, run, wait_until

_BOOT_SECONDS = 90
# ssh ends with 255 when it cannot reach the host; a command's own 255 arrives as 254, so that the two differ.
_UNREACHABLE = 255
_WRAPPED = "(\n{command}\n)\nstatus=$?; [ $status -ne 255 ] || exit 254; exit $status"


@dataclass(frozen=True)
class Machine:
    """A host; commands are run by its root's shell over SSH, their output is both streams as one."""

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
        return ["ssh", *self._options(), f"root@{self.address}"]

    def shell(self, *command: str) -> None:
        """Become an SSH session on the host, interactive or running a command; does not return."""
        login = self.ssh()
        terminal = ["-t"] if sys.stdin.isatty() else []
        os.execvp(login[0], [login[0], *terminal, *login[1:], *command])  # noqa: S606

    def execute(self, command: str, timeout: float = 300) -> tuple[int, str]:
        """Run a shell command; return its exit status (255: the host cannot be reached) and output."""
        done = run([*self.ssh(), _WRAPPED.format(command=command)], check=False, timeout=timeout)
        return done.returncode, done.stdout

    def succeed(self, *commands: str, timeout: float = 300) -> str:
        """Run commands that have to succeed; return the output of all."""
        return "".join(self._demand(command, timeout, lambda status: status == 0) for command in commands)

    def fail(self, *commands: str, timeout: float = 300) -> str:
        """Run commands that have to fail; return the output of all. An unreachable host is an error."""
        return "".join(self._demand(command, timeout, _failed) for command in commands)

    def wait_until_succeeds(self, command: str, timeout: float = 60) -> str:
        """Repeat a command until it succeeds; return its output."""
        return self._repeat(command, timeout, lambda status: status == 0)

    def wait_until_fails(self, command: str, timeout: float = 60) -> str:
        """Repeat a command until it fails; return its output. An unreachable host is waited for."""
        return self._repeat(command, timeout, _failed)

    def wait_for_unit(self, unit: str, timeout: float = 60) -> None:
        """Wait until a unit is active; fails at once, with its status and journal, when it has failed."""
        command = f"systemctl show --value --property ActiveState {shlex.quote(unit)}"

        def active() -> bool:
            state = self._attempt(command, timeout)[1].strip()
            if state == "failed":
                raise LabError(f"{self.name}: {unit} failed:\n{self._about(unit)}")
            return state == "active"

        try:
            wait_until(active, f"{self.name}: {unit} active", timeout, 0.2)
        except LabTimeoutError as error:
            raise LabTimeoutError(f"{error}:\n{self._about(unit)}") from error

    def wait_for_open_port(self, port: int, timeout: float = 60) -> None:
        """Wait until something accepts connections on a TCP port, on the host's address or its loopback."""
        tries = " || ".join(f"bash -c '</dev/tcp/{address}/{port}' 2>&1" for address in (self.address, "127.0.0.1"))
        self.wait_until_succeeds(tries, timeout)

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
        """End every process of the host at once (SIGKILL), as a kernel that stops; what was written stays."""
        guest.kill(self.guest)

    def start(self) -> None:
        """Boot a host that is off, and wait until one can log in."""
        if not guest.runs(self.guest):
            guest.boot(self.guest)
        self.wait_until_up()

    def reboot(self) -> None:
        """Reboot in order, and wait until the host is back."""
        before = self.succeed("cat /proc/sys/kernel/random/boot_id")
        self.execute("systemctl reboot")

        def again() -> bool:
            self._still_runs()
            status, now = self._attempt("cat /proc/sys/kernel/random/boot_id", 10)
            return status == 0 and now != before

        wait_until(again, f"{self.name} reboots", _BOOT_SECONDS)
        self.wait_until_up()

    def block(self) -> None:
        """Cut the host off from every network, this machine's included; it sees silence, and its link stays up."""
        run(["ip", "link", "set", self.guest.interface, "nomaster"])

    def unblock(self) -> None:
        """Give the host its network back."""
        run(["ip", "link", "set", self.guest.interface, "master", self.guest.network.bridge])

    def copy_to_host(self, source: Path, target: str) -> None:
        """Copy a file or folder to the host."""
        run(["scp", "-r", "-q", *self._options(), str(source), f"root@{self.address}:{target}"])

    def copy_from_host(self, source: str, target: Path) -> None:
        """Copy a file or folder from the host."""
        run(["scp", "-r", "-q", *self._options(), f"root@{self.address}:{source}", str(target)])

    def wait_until_up(self) -> None:
        """Wait until the host has booted and one can log in."""

        def booted() -> bool:
            self._still_runs()
            return self._listening() and self._attempt("systemctl is-active multi-user.target", 10)[0] == 0

        try:
            wait_until(booted, f"{self.name} boots", _BOOT_SECONDS)
        except LabTimeoutError as error:
            raise LabTimeoutError(f"{error}; its console and journal:\n{guest.last_words(self.guest)}") from error

    def _options(self) -> list[str]:
        settings = {
            "UserKnownHostsFile": str(self.known_hosts),
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "5",
            "ServerAliveInterval": "10",
            "ServerAliveCountMax": "6",
            "LogLevel": "ERROR",
        }
        options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        return ["-F", "none", "-i", str(self.ssh_key), *options]

    def _demand(self, command: str, timeout: float, good: Callable[[int], bool]) -> str:
        status, output = self.execute(command, timeout)
        if status == _UNREACHABLE:
            raise LabError(f"{self.name} ({self.address}) cannot be reached for `{command}`:\n{output}")
        if not good(status):
            what = f"ended with {status}" if status else "succeeded, and should not have"
            raise LabError(f"{self.name}: `{command}` {what}:\n{output}")
        return output

    def _attempt(self, command: str, timeout: float) -> tuple[int, str]:
        """Run a command of which nothing is known if it does not end in time."""
        try:
            return self.execute(command, timeout)
        except LabTimeoutError as error:
            return _UNREACHABLE, str(error)

    def _repeat(self, command: str, timeout: float, good: Callable[[int], bool]) -> str:
        deadline = time.monotonic() + timeout
        last = ""

        def done() -> bool:
            nonlocal last
            status, last = self._attempt(command, max(1, deadline - time.monotonic()))
            return good(status)

        try:
            wait_until(done, f"{self.name}: `{command}`", timeout, 0.2)
        except LabTimeoutError as error:
            raise LabTimeoutError(f"{error}; it last said:\n{last}") from error
        return last

    def _about(self, unit: str) -> str:
        status = self.systemctl(f"status --no-pager --full --lines 0 {shlex.quote(unit)}")[1]
        return f"{status}\n{self.journal(unit)}"

    def _still_runs(self) -> None:
        if not guest.runs(self.guest):
            words = guest.last_words(self.guest)
            raise LabError(f"{self.name} stopped while booting; its console and journal:\n{words}")

    def _listening(self) -> bool:
        with socket.socket() as client:
            client.settimeout(0.5)
            return client.connect_ex((self.address, 22)) == 0


def _failed(status: int) -> bool:
    return status not in {0, _UNREACHABLE}
