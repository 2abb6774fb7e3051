"""Brings one component to what is wanted: stage, validate, swap, activate, wait, note; on failure, back."""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from deploy.host import notes

_POLICY = Path("/usr/sbin/policy-rc.d")
_DEB = "package.deb"
_POLICY_TEXT = (
    "#!/bin/sh\n# messwarte: packages do not start daemons before their configuration is in place\nexit 101\n"
)


class ApplyError(Exception):
    """Why a component could not be brought to what is wanted."""


def main(spec: dict[str, Any]) -> None:
    """Apply a component, or take away all but some, under the host's lock; ends with 1 and the reason on failure."""
    os.umask(0o022)
    try:
        with _locked():
            if "only" in spec:
                _only(spec["only"])
            else:
                _apply(spec)
    except (ApplyError, OSError) as error:
        sys.exit(f"{spec['name']}: {error}")


def _apply(spec: dict[str, Any]) -> None:
    home = notes.ETC / spec["name"]
    current = home / "current"
    old, begun = notes.read_note(spec["name"]), notes.read_begun(spec["name"])
    previous = current.resolve() if current.exists() else None
    _install_packages(spec["packages"])
    for line in spec["users"]:
        _must(f"systemd-sysusers --inline {shlex.quote(line)}")
    for command in spec["before"]:
        _must(command)
    for archive in spec["archives"]:
        _unpack(archive)
    staged = _stage(home, spec["files"])
    try:
        for command in spec["validate"]:
            _must(command, staged)
    except ApplyError:
        shutil.rmtree(staged)
        raise
    changed = _changed(old, previous, staged)
    _save(spec["name"], _begun_note(spec, begun))
    generation = _keep(staged, home / str(spec["digest"])[:16])
    try:
        _swap(current, generation)
        _stop(set(begun.get("all_units", [])) - {unit["name"] for unit in spec["units"]})
        _link(home, spec, begun)
        for command in spec["swapped"]:
            _must(command, current)
        _activate(spec, changed)
        _wait(spec)
    except (ApplyError, OSError) as error:
        raise ApplyError(f"{error}{_put_back(spec, old, previous, generation)}") from error
    _save(spec["name"], _note(spec, home))
    _prune(home, {generation, previous}, spec["archives"])


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    # A killed run may have left its command at work here: wait for it rather than work beside it.
    with notes.LOCK.open("w") as lock:
        deadline = time.monotonic() + 300
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ApplyError("another deploy has been at work on this host for 5 minutes") from None
                time.sleep(0.2)
        yield


def _must(command: str, cwd: Path | None = None) -> str:
    run = notes.shell(command, cwd)
    if run.returncode:
        raise ApplyError(f"`{command.strip().splitlines()[0]}` failed:\n{run.stdout.strip()[-3000:]}")
    return run.stdout


def _install_packages(packages: list[str]) -> None:
    if _POLICY.exists() and _POLICY.read_text() == _POLICY_TEXT:
        _POLICY.unlink()
    if notes.shell("dpkg --audit").stdout.strip():
        _must("dpkg --configure -a")
    missing = notes.missing_packages(packages)
    if missing:
        _apt_install(" ".join(missing))


def _apt_install(what: str) -> None:
    options = "-y -q --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold"
    install = f"apt-get install {options} {what}"
    guarded = not _POLICY.exists()
    if guarded:
        _POLICY.write_text(_POLICY_TEXT)
        _POLICY.chmod(0o755)
    try:
        if notes.shell(install).returncode:
            _must("apt-get update -q -o DPkg::Lock::Timeout=300")
            _must(install)
    finally:
        if guarded:
            _POLICY.unlink()


def _unpack(archive: dict[str, str]) -> None:
    """Unpack an uploaded archive into its own folder, whole or not at all."""
    target, upload = Path(archive["target"]), Path(archive["upload"])
    if not target.exists():
        partial = target.with_name(f".{target.name}.partial")
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
        partial.rename(target)
    upload.unlink(missing_ok=True)
    if (target / _DEB).exists():
        _install_deb(target / _DEB)


def _install_deb(path: Path) -> None:
    """Install a Debian package file, and what it depends on, unless this very version is installed."""
    name, version = (_must(f"dpkg-deb --field {path} {field}").strip() for field in ("Package", "Version"))
    shown = notes.shell(f"dpkg-query --show --showformat='${{Version}} ${{db:Status-Status}}' {name}")
    if shown.stdout.strip() != f"{version} installed":
        _apt_install(f"--allow-downgrades {path}")


def _stage(home: Path, files: list[dict[str, Any]]) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    staged = home / ".staged"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    for file in files:
        path = staged / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Created closed: a secret must not be readable for the moment before its mode is set.
        with _closed(path) as out:
            out.write(base64.b64decode(file["content"]))
        try:
            shutil.chown(path, *file["owner"].split(":"))
        except LookupError as error:
            raise ApplyError(f"{file['path']}: {error}") from error
        path.chmod(file["mode"])
    return staged


def _closed(path: Path) -> BinaryIO:
    """Open a new file that nobody else can read, not even for the moment before its mode is set."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _changed(old: dict[str, Any] | None, previous: Path | None, staged: Path) -> set[str] | None:
    """Return the files that differ from what runs, or None when that is not known for certain."""
    if previous is None or old is None:
        return None
    if any(notes.fingerprint(Path(path)) != old["files"][path] for path in old["links"]):
        return None
    names = {str(path.relative_to(root)) for root in (previous, staged) for path in root.rglob("*") if path.is_file()}
    return {name for name in names if notes.fingerprint(previous / name) != notes.fingerprint(staged / name)}


def _keep(staged: Path, generation: Path) -> Path:
    if generation.exists():
        damaged = generation.with_name(f".{generation.name}.old")
        shutil.rmtree(damaged, ignore_errors=True)
        generation.rename(damaged)
        staged.rename(generation)
        shutil.rmtree(damaged)
    else:
        staged.rename(generation)
    return generation


def _swap(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _link(home: Path, wanted: dict[str, Any], old: dict[str, Any]) -> None:
    """Point links and application folders to what is wanted, and take away those that are not."""
    for path, name in wanted["links"].items():
        _swap(Path(path), home / "current" / name)
    for path in set(old.get("links", {})) - set(wanted["links"]):
        Path(path).unlink(missing_ok=True)
    for archive in wanted["archives"]:
        target = Path(archive["target"])
        _swap(target.parent / "current", target)
    if any("/systemd/" in path for path in [*wanted["links"], *old.get("links", {})]):
        _must("systemctl daemon-reload")


def _activate(spec: dict[str, Any], changed: set[str] | None) -> None:
    """Restart or reload what the changed files ask for; None means that nothing is known, so restart."""
    states = notes.unit_states([unit["name"] for unit in spec["units"]])
    for unit in spec["units"]:
        name, running = unit["name"], states.get(unit["name"], "").startswith("active/")
        if unit["enable"]:
            _must(f"systemctl enable --quiet {name}")
        gentle = changed is not None and all(file in unit["reload_for"] for file in changed)
        if running and gentle and changed:
            _must(f"systemctl reload {name}")
        elif unit["start"] and not (running and gentle):
            _restart(name, spec["timeout"])
    current = notes.ETC / spec["name"] / "current"
    for command in spec["after"]:
        _must(command, current)


def _restart(unit: str, timeout: float) -> None:
    """Restart a unit; `systemctl restart` itself would wait without end while systemd tries again and again."""
    # A unit that gave up after repeated failures refuses to start until this is said.
    notes.shell(f"systemctl reset-failed {unit}; systemctl stop {unit}")
    _must(f"systemctl start --no-block {unit}")
    deadline = time.monotonic() + timeout
    while (shown := notes.show(unit, "ActiveState", "SubState"))["ActiveState"] != "active":
        again = shown["SubState"].startswith("auto-restart")
        if shown["ActiveState"] == "failed" or again or time.monotonic() > deadline:
            raise ApplyError(f"{unit} did not start ({shown['SubState']}):\n{_journal(unit)}")
        time.sleep(0.05)


def _wait(spec: dict[str, Any]) -> None:
    deadline = time.monotonic() + spec["timeout"]
    units = [unit["name"] for unit in spec["units"] if unit["start"]]
    for command in [*spec["ready"], *(f"systemctl is-active {unit}" for unit in units)]:
        while (run := notes.shell(command)).returncode:
            failed = [unit for unit in units if _fails(unit)]
            if failed or time.monotonic() > deadline:
                journals = "".join(_journal(unit) for unit in units)
                why = f"{failed[0]} failed" if failed else f"not ready after {spec['timeout']} s"
                raise ApplyError(f"{why}: `{command}` says:\n{run.stdout.strip()[-1000:]}\n{journals}")
            time.sleep(0.1)


def _fails(unit: str) -> bool:
    """Say whether a unit gave up, or is started for the third time in vain."""
    shown = notes.show(unit, "ActiveState", "SubState", "NRestarts")
    return shown["ActiveState"] == "failed" or (
        shown["SubState"].startswith("auto-restart") and int(shown["NRestarts"]) >= 2
    )


def _journal(unit: str) -> str:
    return notes.shell(f"journalctl --no-pager --quiet --lines 15 --unit {unit}").stdout


def _put_back(spec: dict[str, Any], old: dict[str, Any] | None, previous: Path | None, generation: Path) -> str:
    """Return to the generation that ran before, and say how that went; without one, the next run replaces the files."""
    if previous is None or old is None or previous == generation:
        return ""
    _swap(generation.parent / "current", previous)
    _stop({unit["name"] for unit in spec["units"]} - set(old["all_units"]))
    _link(generation.parent, old, spec)
    try:
        for unit in old["units"]:
            _restart(unit, spec["timeout"])
        _wait(old | {"timeout": spec["timeout"], "units": [{"name": unit, "start": True} for unit in old["units"]]})
    except ApplyError:
        return "\nThe configuration before it was put back, and does not run either."
    _save(spec["name"], old)
    shutil.rmtree(generation)
    return "\nThe configuration before it was put back and runs."


def _begun_note(spec: dict[str, Any], begun: dict[str, Any]) -> dict[str, Any]:
    """Return what an interrupted run may leave behind, so that a later one can take it away."""
    return {
        "digest": None,
        "links": begun.get("links", {}) | spec["links"],
        "archives": [*begun.get("archives", []), *spec["archives"]],
        "all_units": sorted({*begun.get("all_units", []), *(unit["name"] for unit in spec["units"])}),
    }


def _note(spec: dict[str, Any], home: Path) -> dict[str, Any]:
    current = (home / "current").resolve()
    watched = [
        home / "current",
        *map(Path, spec["links"]),
        *(path for path in current.rglob("*") if path.is_file()),
        *(Path(archive["target"]).parent / "current" for archive in spec["archives"]),
    ]
    return {
        **{key: spec[key] for key in ("digest", "links", "archives", "packages", "ready", "url", "detail")},
        "files": {str(path): notes.fingerprint(path) for path in watched},
        "units": notes.unit_states([unit["name"] for unit in spec["units"] if unit["start"]]),
        "probes": {name: [command, notes.probe(command)] for name, command in spec["probes"].items()},
        "all_units": [unit["name"] for unit in spec["units"]],
    }


def _save(name: str, note: dict[str, Any]) -> None:
    notes.NOTES.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = notes.note_path(name)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with _closed(fresh) as out:
        out.write(json.dumps(note).encode())
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)


def _prune(home: Path, keep: set[Path | None], archives: list[dict[str, str]]) -> None:
    for old in home.iterdir():
        if old.is_dir() and not old.is_symlink() and old not in keep:
            shutil.rmtree(old)
    used = _archives_in_use()
    for apps in {Path(archive["target"]).parent for archive in archives}:
        for old in apps.iterdir():
            if old.is_dir() and not old.is_symlink() and old not in used:
                shutil.rmtree(old)


def _archives_in_use() -> set[Path]:
    """Return the folders of all components' archives: several components can run the same application."""
    return {Path(one["target"]) for name in notes.applied() for one in notes.read_begun(name).get("archives", [])}


def _only(wanted: list[str]) -> None:
    for name in sorted(set(notes.applied()) - set(wanted)):
        _remove(name)
    notes.NOTES.mkdir(parents=True, exist_ok=True, mode=0o700)
    notes.WANTED.write_text(json.dumps(wanted))


def _remove(name: str) -> None:
    """Take away what a component brought: units, links, files; its packages and data stay."""
    begun = notes.read_begun(name)
    _stop(begun.get("all_units", []))
    for path in begun.get("links", []):
        Path(path).unlink(missing_ok=True)
    _must("systemctl daemon-reload")
    notes.note_path(name).unlink(missing_ok=True)
    used = {target.parent for target in _archives_in_use()}
    for archive in begun.get("archives", []):
        if (apps := Path(archive["target"]).parent) not in used:
            shutil.rmtree(apps, ignore_errors=True)
    shutil.rmtree(notes.ETC / name)


def _stop(units: Iterable[str]) -> None:
    for unit in sorted(units):
        _must(f"systemctl disable --now --quiet {unit} 2>/dev/null || systemctl stop {unit}")
