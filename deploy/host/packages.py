"""Debian packages and archives of programs: what has to be on the host before a component's files."""

import compileall
import contextlib
import fcntl
import hashlib
import os
import py_compile
import shlex
import shutil
import tarfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.host import notes
from deploy.host.system import UNITS, ApplyError, missing_packages, must, shell, unit_files

_POLICY = Path("/usr/sbin/policy-rc.d")
_DPKG_LOCK = Path("/var/lib/dpkg/lock-frontend")
_DEB = "package.deb"
_DATA = "/var/lib/"
_PACKAGED = Path("/usr/lib/systemd/system")
_DROP_IN = "messwarte.conf"
_GUARD_TEXT = "# messwarte: waits for its configuration\n[Unit]\nConditionPathExists=!/\n"
_POLICY_TEXT = (
    "#!/bin/sh\n# messwarte: packages do not start daemons before their configuration is in place\nexit 101\n"
)


def install(packages: list[str], idle: list[str]) -> None:
    """Install the packages that are missing, without starting their daemons; mends what an interrupted run left.

    Units that are `idle` come with missing packages and are not ours to run: they are masked before they are there.
    """
    _wait_for_dpkg()
    if _POLICY.exists() and _POLICY.read_text() == _POLICY_TEXT:
        _POLICY.unlink()
    if shell("dpkg --audit").stdout.strip():
        with _no_starts():
            must("dpkg --configure -a")
    missing = missing_packages(packages)
    if missing:
        for unit in idle:
            if not unit_files(unit):
                must(f"systemctl mask --quiet {unit}")
        _apt_install(" ".join(missing))


def get_ahead(spec: dict[str, Any]) -> None:
    """Install packages whose components come later in the run, and unpack their archives meanwhile.

    Until a component puts its link in a drop-in's place, its new daemon does not start at a boot either: as Debian
    configures them, several listen on all addresses. A daemon that is there already is somebody's, and goes on.
    """
    shutil.rmtree(notes.AHEAD, ignore_errors=True)
    for path in map(Path, spec["drop_ins"]):
        unit, instance, _ = path.parent.name.removesuffix(".service.d").partition("@")
        if not path.is_symlink() and not path.exists() and not (_PACKAGED / f"{unit}{instance}.service").exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(_GUARD_TEXT)
    with ThreadPoolExecutor(1) as pool:
        unpacked = [pool.submit(_extract, archive, notes.AHEAD / archive["sha256"]) for archive in spec["archives"]]
        install(spec["install"], spec["idle"])
        for one in unpacked:
            one.result()


def drop_leftovers() -> None:
    """Take away what was brought ahead for components that never had their turn."""
    shutil.rmtree(notes.AHEAD, ignore_errors=True)
    guards = [path for path in UNITS.glob(f"*.d/{_DROP_IN}") if not path.is_symlink()]
    if guards:
        # A package that is but half installed would enable its daemon later.
        install([], [])
    for path in guards:
        path.unlink()
        shell(f"systemctl disable --quiet {path.parent.name.removesuffix('.d')}")


def _wait_for_dpkg() -> None:
    """Wait until nobody else installs: a killed run's apt goes on, and so does this machine's own upgrade."""
    deadline = time.monotonic() + 300
    with _DPKG_LOCK.open("w") as lock:
        while True:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ApplyError("dpkg has been locked by another program for 5 minutes") from None
                time.sleep(0.2)
            else:
                return


def _apt_install(what: str) -> None:
    options = "-y -q --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold"
    install = f"apt-get install {options} {what}"
    with _no_starts():
        if shell(install).returncode:
            must("apt-get update -q -o DPkg::Lock::Timeout=300")
            must(install)


@contextlib.contextmanager
def _no_starts() -> Iterator[None]:
    """Keep packages from starting daemons before their configuration is in place; somebody's own policy stays."""
    guarded = not _POLICY.exists()
    if guarded:
        _POLICY.write_text(_POLICY_TEXT)
        _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if guarded:
            _POLICY.unlink()


def make_users(lines: list[str]) -> None:
    """Make system users (sysusers.d lines), and take back what was given to them by hand."""
    words = [shlex.split(line) for line in lines]
    for line in lines:
        must(f"systemd-sysusers --inline {shlex.quote(line)}")
    for name in [word[1] for word in words if word[0] == "u"]:
        groups = sorted(word[2] for word in words if word[:2] == ["m", name])
        wanted = f"shell /usr/sbin/nologin, groups {' '.join(groups) or '-'}, no password"
        if notes.account(name) != wanted:
            if "its number shared" in notes.account(name):
                raise ApplyError(f"user {name} {notes.account(name)}; give the others a number of their own (usermod)")
            must(f"usermod --shell /usr/sbin/nologin --gid {name} --groups '{','.join(groups)}' --password '!*' {name}")
            for other in notes.sharing(name):
                must(f"usermod --gid nogroup {shlex.quote(other)}")
            must(f"gpasswd --members '' {name}")


def make_folders(wanted: dict[str, str], known: Iterable[str]) -> None:
    """Make folders, or give them back the mode and owner that they are to have.

    Raises ApplyError for one of data that is known and gone.
    """
    for path, rights in wanted.items():
        if path.startswith(_DATA) and path in known and not Path(path).exists():
            raise ApplyError(
                f"{path} is gone with its data: put it back; or, to begin anew, stop its service and make it, empty"
            )
        mode, owner = rights.split()
        Path(path).mkdir(parents=True, exist_ok=True)
        for acl in notes.acls(Path(path)):
            os.removexattr(path, acl)
        must(f"chown {owner} {path} && chmod {mode} {path}")


def unpack(archive: dict[str, str]) -> None:
    """Unpack an uploaded archive into its own folder, whole or not at all; a changed folder is replaced."""
    target, ahead = Path(archive["target"]), notes.AHEAD / archive["sha256"]
    if not target.exists() or notes.tree(target) != notes.read_tree(target):
        if not ahead.exists():
            _extract(archive, ahead)
        damaged = target.with_name(f".{target.name}.damaged")
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.rename(damaged)
        ahead.rename(target)
        with contextlib.suppress(OSError):
            notes.AHEAD.rmdir()
        shutil.rmtree(damaged, ignore_errors=True)
        notes.write(notes.tree_path(target), notes.tree(target))
    Path(archive["upload"]).unlink(missing_ok=True)
    if (target / _DEB).exists():
        _install_deb(target / _DEB)


def _extract(archive: dict[str, str], target: Path) -> None:
    upload, partial = Path(archive["upload"]), target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with upload.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != archive["sha256"]:
            raise ApplyError(f"{upload} was damaged on its way; run the deploy again")
        file.seek(0)
        is_deb = file.read(8) == b"!<arch>\n"
        file.seek(0)
        if is_deb:
            shutil.copyfile(upload, partial / _DEB)
        else:
            with tarfile.open(fileobj=file) as tar:
                tar.extractall(partial, filter="tar")
    # Else each start of a daemon, which may not write here, would compile the modules anew. Nobody changes the sources.
    compileall.compile_dir(partial, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    partial.rename(target)
    upload.unlink()


def _install_deb(path: Path) -> None:
    """Install a Debian package file, and what it depends on, unless this very version is installed."""
    name, version = (must(f"dpkg-deb --field {path} {field}").strip() for field in ("Package", "Version"))
    shown = shell(f"dpkg-query --show --showformat='${{Version}} ${{db:Status-Status}}' {name}")
    if shown.stdout.strip() != f"{version} installed":
        _apt_install(f"--allow-downgrades {path}")
