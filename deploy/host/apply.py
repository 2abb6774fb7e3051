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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from deploy.host import notes

_POLICY = Path("/usr/sbin/policy-rc.d")
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
    except ApplyError as error:
        sys.exit(f"{spec['name']}: {error}")


def _apply(spec: dict[str, Any]) -> None:
    home = notes.ETC / spec["name"]
    current = home / "current"
    old = notes.read_note(spec["name"])
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
    notes.note_path(spec["name"]).unlink(missing_ok=True)
    generation = _keep(staged, home / str(spec["digest"])[:16])
    try:
        _swap(current, generation)
        _link(home, spec, old)
        for command in spec["swapped"]:
            _must(command, current)
        _activate(spec, changed)
        _wait(spec)
    except ApplyError:
        _put_back(spec, old, previous, generation)
        raise
    _write_note(spec, home)
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
    if not missing:
        return
    options = "-y -q --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold"
    install = f"apt-get install {options} {' '.join(missing)}"
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
            with tarfile.open(fileobj=file) as tar:
                tar.extractall(partial, filter="tar")
        partial.rename(target)
    upload.unlink(missing_ok=True)


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


def _link(home: Path, wanted: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Point links and application folders to what is wanted, and take away those that are not."""
    for path, name in wanted["links"].items():
        _swap(Path(path), home / "current" / name)
    for path in set((old or {}).get("links", {})) - set(wanted["links"]):
        Path(path).unlink(missing_ok=True)
    for archive in wanted["archives"]:
        target = Path(archive["target"])
        _swap(target.parent / "current", target)
    if any("/systemd/" in path for path in [*wanted["links"], *(old or {}).get("links", {})]):
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
            # A unit that gave up after repeated failures refuses to start until this is said.
            notes.shell(f"systemctl reset-failed {name}")
            run = notes.shell(f"systemctl restart {name}")
            if run.returncode:
                raise ApplyError(f"{name} did not start:\n{run.stdout}{_journal(name)}")
    current = notes.ETC / spec["name"] / "current"
    for command in spec["after"]:
        _must(command, current)


def _wait(spec: dict[str, Any]) -> None:
    deadline = time.monotonic() + spec["timeout"]
    for command in spec["ready"]:
        while (run := notes.shell(command)).returncode:
            failed = [
                u["name"] for u in spec["units"] if notes.unit_states([u["name"]])[u["name"]].startswith("failed")
            ]
            if failed or time.monotonic() > deadline:
                journals = "".join(_journal(unit["name"]) for unit in spec["units"])
                why = f"{failed[0]} failed" if failed else f"not ready after {spec['timeout']} s"
                raise ApplyError(f"{why}: `{command}` says:\n{run.stdout.strip()[-1000:]}\n{journals}")
            time.sleep(0.1)


def _journal(unit: str) -> str:
    return notes.shell(f"journalctl --no-pager --quiet --lines 15 --unit {unit}").stdout


def _put_back(spec: dict[str, Any], old: dict[str, Any] | None, previous: Path | None, generation: Path) -> None:
    """Return to the generation that ran before; without one, leave the files for the next run to replace."""
    if previous is None or old is None or previous == generation:
        return
    home = generation.parent
    _swap(home / "current", previous)
    _link(home, old, spec)
    for unit in spec["units"]:
        if unit["start"]:
            notes.shell(f"systemctl reset-failed {unit['name']}; systemctl restart {unit['name']}")
    shutil.rmtree(generation)


def _write_note(spec: dict[str, Any], home: Path) -> None:
    current = (home / "current").resolve()
    watched = [
        home / "current",
        *map(Path, spec["links"]),
        *(path for path in current.rglob("*") if path.is_file()),
    ]
    note = {
        **{key: spec[key] for key in ("digest", "links", "archives", "packages", "ready", "url", "detail")},
        "files": {str(path): notes.fingerprint(path) for path in watched},
        "units": notes.unit_states([unit["name"] for unit in spec["units"] if unit["start"]]),
        "probes": {name: [command, notes.probe(command)] for name, command in spec["probes"].items()},
        "all_units": [unit["name"] for unit in spec["units"]],
    }
    notes.NOTES.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = notes.note_path(spec["name"])
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
    for archive in archives:
        target = Path(archive["target"])
        for old in target.parent.iterdir():
            if old.is_dir() and not old.is_symlink() and old != target:
                shutil.rmtree(old)


def _only(wanted: list[str]) -> None:
    for name in sorted(set(notes.applied()) - set(wanted)):
        _remove(name)
    notes.NOTES.mkdir(parents=True, exist_ok=True, mode=0o700)
    notes.WANTED.write_text(json.dumps(wanted))


def _remove(name: str) -> None:
    """Take away what a component brought: units, links, files; its packages and data stay."""
    home, note = notes.ETC / name, notes.read_note(name)
    for unit in (note or {}).get("all_units", []):
        _must(f"systemctl disable --now --quiet {unit} 2>/dev/null || systemctl stop {unit}")
    notes.note_path(name).unlink(missing_ok=True)
    for path in (note or {}).get("links", []):
        Path(path).unlink(missing_ok=True)
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(notes.APPS / name, ignore_errors=True)
    _must("systemctl daemon-reload")
