"""Runs on the host: brings one component to what is wanted, or puts the old one back. Standard library only.

Stage, validate, delete the note, swap, activate, wait, write the note. The note is what a later run compares
with, so whatever interrupts this one, the next begins anew.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.host import generations, notes, packages, units
from deploy.host.system import ApplyError, enabled_by, must, unit_files, unit_states

_FULL = {errno.ENOSPC, errno.EDQUOT}


def main(spec: dict[str, Any]) -> None:
    """Do what the spec says under the host's lock; ends with 1 and the reason on failure."""
    os.umask(0o022)
    try:
        with _locked():
            if "only" in spec:
                _only(spec["only"])
            elif "install" in spec:
                packages.get_ahead(spec)
            elif "roll_back" in spec:
                _roll_back(spec["roll_back"])
            else:
                _apply(spec)
    except ApplyError as error:
        sys.exit(f"{spec['name']}: {error}")
    except OSError as error:
        sys.exit(f"{spec['name']}: {error}{_where_full(spec['name']) if error.errno in _FULL else ''}")


def _where_full(name: str) -> str:
    """Say which of the folders in which a deploy writes have no room left, as Linux itself does not."""
    places = (notes.ETC / name, notes.NOTES, notes.APPS, Path("/var/lib/dpkg"), Path("/tmp"))  # noqa: S108 - others do
    full = [str(place) for place in places if place.exists() and _is_full(os.statvfs(place))]
    return f" below {', '.join(full)}" if full else ""


def _is_full(found: os.statvfs_result) -> bool:
    return not found.f_bavail or (found.f_files > 0 and not found.f_favail)


def _apply(spec: dict[str, Any]) -> None:
    name, home = spec["name"], notes.ETC / spec["name"]
    current = home / "current"
    old, begun = notes.read_note(name), notes.read_begun(name)
    previous = current.resolve() if current.exists() else None
    packages.install(spec["packages"], spec["idle"])
    packages.make_users(spec["users"])
    for command in spec["before"]:
        must(command)
    packages.install(spec["repository_packages"], [])
    for archive in spec["archives"]:
        packages.unpack(archive)
    units.keep_idle(begun.get("masked", []))
    packages.make_folders(_folders(spec), old.get("folders", ()) if old else ())
    staged = generations.stage(home, spec["files"])
    try:
        for command in spec["validate"]:
            must(command, staged)
        generations.resolve(spec["name"], staged)
    except ApplyError:
        shutil.rmtree(staged)
        raise
    changed = generations.changed(old, previous, staged)
    if old is None or old.get("trees", {}) != _trees(spec):
        changed = None
    notes.write(notes.note_path(name), _begun_note(spec, begun))
    generation = generations.keep(staged, home / str(spec["digest"])[:16])
    disturbed = False
    try:
        generations.swap(current, generation)
        units.stop(set(begun.get("all_units", [])) - {unit["name"] for unit in spec["units"]})
        generations.link(home, spec, begun)
        if units.claim(spec, begun.get("enabled_by", {})):
            disturbed, changed = True, None
        for command in spec["swapped"]:
            must(command, current)
        disturbed = True
        units.activate(spec, changed)
        units.wait(spec)
    except (ApplyError, OSError) as error:
        raise ApplyError(f"{error}{_put_back(spec, old, previous, generation, disturbed)}") from error
    note = _note(spec, generation)
    notes.write(notes.earlier_path(name, generation), note)
    notes.write(notes.note_path(name), note)
    generations.prune(name, generation)


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


def _put_back(
    spec: dict[str, Any], old: dict[str, Any] | None, previous: Path | None, generation: Path, disturbed: bool
) -> str:
    """Return to the generation that ran before, and say how that went; without one, the next run replaces the files.

    Units that were not `disturbed` run with it still, and go on.
    """
    if previous is None or old is None or previous == generation:
        return ""
    try:
        begun = {"links": spec["links"], "all_units": [unit["name"] for unit in spec["units"]]}
        _return_to(old, begun, disturbed=disturbed)
    except (ApplyError, OSError):
        return "\nThe configuration before it was put back, and does not run either."
    notes.earlier_path(spec["name"], generation).unlink(missing_ok=True)
    shutil.rmtree(generation)
    return "\nThe configuration before it was put back and runs."


def _roll_back(name: str) -> None:
    """Return to the generation before the one that runs; packages, data and what is in a database stay."""
    current = (notes.ETC / name / "current").resolve()
    begun = notes.read_begun(name)
    if not begun.get("all_units"):
        raise ApplyError("it has no service whose configuration could be put back")
    earlier = generations.before(name, current)
    if not earlier:
        raise ApplyError("there is no earlier configuration to return to")
    if damage := generations.damage(earlier[0]):
        raise ApplyError(f"the earlier configuration is not as it was: {'; '.join(damage)}")
    notes.write(notes.note_path(name), begun | {"digest": None})
    _return_to(earlier[0], begun, disturbed=True)


def _return_to(note: dict[str, Any], begun: dict[str, Any], *, disturbed: bool) -> None:
    """Swap a kept generation in and wait for it; `begun` names the links and units that may be there now."""
    generation = Path(note["generation"])
    generations.swap(generation.parent / "current", generation)
    units.stop(set(begun["all_units"]) - set(note["all_units"]))
    generations.link(generation.parent, note, begun)
    # Others are enabled only: they are not ours to start.
    started = [unit for unit, state in note["units"].items() if state.startswith("active/")]
    states = unit_states(started)
    for unit in started:
        if disturbed or not states[unit].startswith("active/"):
            units.restart(unit, note["timeout"])
    units.wait(note | {"units": [{"name": unit, "start": True} for unit in started]})
    notes.write(notes.note_path(generation.parent.name), note)


def _begun_note(spec: dict[str, Any], begun: dict[str, Any]) -> dict[str, Any]:
    """Return what an interrupted run may leave behind, so that a later one can take it away."""
    return {
        "digest": None,
        "links": begun.get("links", {}) | spec["links"],
        "archives": [*begun.get("archives", []), *spec["archives"]],
        "all_units": sorted({*begun.get("all_units", []), *(unit["name"] for unit in spec["units"])}),
        "masked": begun.get("masked", []),
        "enabled_by": begun.get("enabled_by", {}),
    }


def _note(spec: dict[str, Any], generation: Path) -> dict[str, Any]:
    watched = [
        generation.parent / "current",
        *map(Path, spec["links"]),
        generation,
        *generation.rglob("*"),
        *(Path(archive["target"]).parent / "current" for archive in spec["archives"]),
    ]
    return {
        **{key: spec[key] for key in ("digest", "links", "archives", "ready", "timeout", "url", "detail")},
        "packages": [*spec["packages"], *spec["repository_packages"]],
        "applied": time.time(),
        "generation": str(generation),
        "folders": {path: notes.rights(Path(path)) for path in _folders(spec)},
        "files": {str(path): notes.fingerprint(path) for path in watched},
        # By which one tells what another wish changes; what others may not read has no hash that leaves the host.
        "contents": {
            file["path"]: " ".join(notes.fingerprint(generation / file["path"]).split()[:2])
            for file in spec["files"]
            if file["mode"] & 0o004
        },
        "unit_files": {unit["name"]: unit_files(unit["name"]) for unit in spec["units"]},
        "enabled_by": {unit["name"]: enabled_by(unit["name"]) for unit in spec["units"] if unit["enable"]},
        "trees": _trees(spec),
        "users": {name: notes.account(name) for name in (line.split()[1] for line in spec["users"])},
        "units": units.wanted_states(spec["units"]),
        "reload_for": {unit["name"]: unit["reload_for"] for unit in spec["units"]},
        "masked": units.masked(spec["idle"]),
        "probes": {name: [command, notes.probe(command)] for name, command in spec["probes"].items()},
        "all_units": [unit["name"] for unit in spec["units"]],
    }


def _folders(spec: dict[str, Any]) -> dict[str, str]:
    homes = [notes.ETC / spec["name"], *(Path(archive["target"]).parent for archive in spec["archives"])]
    drop_ins = [Path(path).parent for path in spec["links"] if Path(path).parent.suffix == ".d"]
    return {**{str(folder): "755 root:root" for folder in (*homes, *drop_ins)}, **spec["folders"]}


def _trees(spec: dict[str, Any]) -> dict[str, str]:
    """Return how the archives were unpacked, as a hash: a program that was put right has to be started anew."""
    targets = [archive["target"] for archive in spec["archives"]]
    return {target: notes.tree_digest(notes.read_tree(Path(target))) for target in targets}


def _only(wanted: list[str]) -> None:
    for name in sorted(set(notes.applied()) - set(wanted)):
        _remove(name)
    packages.drop_leftovers()
    notes.write(notes.WANTED, wanted)


def _remove(name: str) -> None:
    """Take away what a component brought: units, links, files; its packages and data stay."""
    begun = notes.read_begun(name)
    units.stop(begun.get("all_units", []))
    for path in begun.get("links", []):
        Path(path).unlink(missing_ok=True)
    must("systemctl daemon-reload")
    notes.note_path(name).unlink(missing_ok=True)
    shutil.rmtree(notes.EARLIER / name, ignore_errors=True)
    generations.sweep_archives()
    shutil.rmtree(notes.ETC / name)
