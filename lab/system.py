"""What every part of the lab needs: running programs, waiting, locks, and the machine's own requirements."""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PACKAGES = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Held by whoever installs packages on this machine: apt-get waits for its locks in some steps only.
INSTALLING = Path("/run/lock/messwarte-packages")
# A program started with this ends with the process that waits for it, also when that is killed.
BOUND = ("setpriv", "--pdeathsig", "KILL", "--")
# Seconds. A process that is killed while it starts a program leaves its locks to that program until its exec.
_UNTIL_EXEC = 2.0
Progress = Callable[[str], None]


class LabError(Exception):
    """Why a lab cannot be made, reached or taken down; says what to do."""


class LabTimeoutError(LabError):
    """Something did not happen, or did not end, in time."""


def say(line: str) -> None:
    """Print a line of progress at once, also into a pipe."""
    print(line, flush=True)


def run(
    command: Sequence[str], *, check: bool = True, timeout: float | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program and return its output, both streams as one; raises LabError with that output."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
            env=_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise LabTimeoutError(f"`{shlex.join(command)}` did not end within {timeout:.0f} s") from error
    except FileNotFoundError as error:
        raise LabError(f"`{command[0]}` is not installed on this machine") from error
    if check and done.returncode:
        raise LabError(f"`{shlex.join(command)}` ended with {done.returncode}:\n{done.stdout.strip()[-2000:]}")
    return done


def wait_until(condition: Callable[[], bool], what: str, timeout: float, interval: float = 0.1) -> None:
    """Poll a condition every `interval` seconds; raises LabError naming what was waited for after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabTimeoutError(f"{what}: not within {timeout:g} s")
        time.sleep(interval)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, busy: str | None = None) -> Iterator[None]:
    """Hold a lock; while another process holds it, wait, or with `busy` raise LabError of that text after a moment."""
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if busy else 0)
    deadline = time.monotonic() + _UNTIL_EXEC
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), path.open("a") as handle:
            try:
                fcntl.flock(handle, kind)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LabError(busy) from error
                time.sleep(0.05)
                continue
            # The holder before us may have deleted the file, and a lock on a deleted file excludes nobody.
            if _is_file(path, handle.fileno()):
                yield
                return


def write_json(path: Path, content: object) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    partial = path.with_name(f"{path.name}.partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.rename(path)


def delete_tree(path: Path) -> None:
    """Delete a tree whatever its flags, never what is mounted below it."""
    for point in sorted((m for m in _mounts() if m == str(path) or m.startswith(f"{path}/")), reverse=True):
        run(["umount", "--lazy", point])
    command = ["rm", "-rf", "--one-file-system", str(path)]
    if path.exists() and run(command, check=False).returncode:
        with contextlib.suppress(LabError):
            run(["chattr", "-R", "-f", "-i", "-a", str(path)], check=False)
        run(command)


def need_root() -> None:
    """Raise LabError with the command to run unless this is root."""
    if os.geteuid() != 0:
        raise LabError("a lab's hosts are real ones, which only root can boot and reach; run: sudo ./messwarte up")


def require(progress: Progress) -> None:
    """Install what the lab needs (Debian, Ubuntu); as another user than root say which command to run."""
    need_root()
    missing = missing_packages()
    if not missing:
        return
    if not installed("apt-get"):
        raise LabError(f"these packages are missing, and there is no apt-get on this machine: {' '.join(missing)}")
    progress(f"installing {', '.join(missing)} on this machine (apt-get)")
    with locked(INSTALLING):
        run(["dpkg", "--configure", "-a"])
        wait = "DPkg::Lock::Timeout=300"
        # Lists that cannot be refreshed may still do; the installation tells.
        run(["apt-get", "update", "-qq", "-o", wait], check=False)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "-o", wait, *missing])
    if missing_packages():
        raise LabError(f"installed {' '.join(missing)}, and still not there: {' '.join(missing_packages())}")


def missing_packages() -> list[str]:
    """Return the Debian packages that the lab needs and this machine lacks."""
    missing = {package for program, package in PACKAGES.items() if not installed(program)}
    if not _KEYRING.exists():
        missing.add("debian-archive-keyring")
    return sorted(missing)


def installed(program: str) -> bool:
    """Say whether a program is there, also one for administrators that this user's PATH does not hold."""
    return shutil.which(program, path=_environment()["PATH"]) is not None


def _environment() -> dict[str, str]:
    search = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    return os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "PATH": search}


def _mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1].replace("\\040", " ") for line in lines]


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
