"""What every part of the lab needs: running programs, waiting, and the machine's own requirements."""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence

PACKAGES = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
Progress = Callable[[str], None]


class LabError(Exception):
    """Why a lab cannot be made, reached or taken down; says what to do."""


def run(
    command: Sequence[str], *, check: bool = True, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and return its output, both streams as one; raises LabError with that output."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
            env=os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{shlex.join(command)}` did not end within {timeout:g} s") from error
    if check and done.returncode:
        raise LabError(f"`{shlex.join(command)}` ended with {done.returncode}:\n{done.stdout.strip()[-2000:]}")
    return done


def wait_until(condition: Callable[[], bool], what: str, timeout: float, interval: float = 0.1) -> None:
    """Poll a condition; raises LabError naming what was waited for after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {timeout:g} s")
        time.sleep(interval)


def require(progress: Progress) -> None:
    """Install the programs that the lab needs; as another user than root say which command to run."""
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted({package for program, package in PACKAGES.items() if not shutil.which(program, path=search)})
    if os.geteuid() != 0:
        raise LabError("a lab boots real hosts, which only root can do; run: sudo ./messwarte up")
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise LabError(f"these programs' packages are missing, and there is no apt-get here: {' '.join(missing)}")
    progress(f"installing {', '.join(missing)} on this machine (apt-get)")
    run(["apt-get", "update", "-qq"])
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing])
