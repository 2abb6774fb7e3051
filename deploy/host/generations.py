"""Generations of a component's files below /etc/messwarte/COMPONENT, and the links that lead to the current one."""

import base64
import contextlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.host import notes
from deploy.host.system import ApplyError, FoundUnit, look_at_units, must

# Beside the one that runs.
_KEPT = 2
# A generation, or what an interrupted run has left of one.
_OURS = re.compile(r"[0-9a-f]{16}|\..+")


def stage(home: Path, files: list[dict[str, Any]]) -> Path:
    """Write a new generation beside the others; return its folder."""
    home.mkdir(parents=True, exist_ok=True)
    staged = home / ".staged"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    for file in files:
        path = staged / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Created closed: a secret must not be readable for the moment before its mode is set.
        with notes.closed(path) as out:
            out.write(base64.b64decode(file["content"]))
        try:
            shutil.chown(path, *file["owner"].split(":"))
        except LookupError as error:
            raise ApplyError(f"{file['path']}: {error}") from error
        path.chmod(file["mode"])
    return staged


def resolve(name: str, staged: Path) -> None:
    """Raise ApplyError where a file of a new generation names another of it that is not there."""
    for path in [path for path in staged.rglob("*") if path.is_file()]:
        for named in re.findall(
            rb"/etc/messwarte/%b/current/([\w./-]*\w)(?![*?{[])" % name.encode(), path.read_bytes()
        ):
            if not (staged / named.decode()).exists():
                raise ApplyError(f"{path.relative_to(staged)} names {named.decode()}, which is missing")


def changed(old: dict[str, Any] | None, previous: Path | None, staged: Path) -> set[str] | None:
    """Return the files that differ from what runs, or None when that is not known for certain."""
    if previous is None or old is None:
        return None
    if any(notes.fingerprint(Path(path)) != old["files"][path] for path in old["links"]):
        return None
    names = {str(path.relative_to(root)) for root in (previous, staged) for path in root.rglob("*") if path.is_file()}
    late = {str(Path(path).relative_to(old["generation"])) for path in unread(old, look_at_units(list(old["units"])))}
    return late | {name for name in names if notes.fingerprint(previous / name) != notes.fingerprint(staged / name)}


def unread(note: dict[str, Any], units: Mapping[str, FoundUnit]) -> dict[str, str]:
    """Return the files of a generation that were touched and are as they were, and a unit that runs since before that.

    Told by their moment of change (ctime), which no program sets back; what the unit has read may have been another.
    """
    # What a timer starts reads its files each time.
    reading = [unit for unit in note["units"] if not unit.endswith(".timer")]
    running = [
        unit
        for unit in reading
        if note["units"][unit].startswith("active/") and units[unit].state.startswith("active/")
    ]
    found = {}
    for path, wanted in own(note).items():
        file = Path(path)
        touched = file.stat().st_ctime if file.is_file() else 0
        if touched > note["applied"] and not notes.difference(file, wanted):
            name = str(file.relative_to(note["generation"]))
            for unit in running:
                if touched > _read_at(name, note, unit, units[unit]):
                    found[path] = unit
    return found


def _read_at(name: str, note: dict[str, Any], unit: str, found: FoundUnit) -> float:
    """Return when a unit has last read one of its component's files; earlier versions noted no `reload_for`."""
    return max(found.began, found.reloaded if name in note.get("reload_for", {}).get(unit, ()) else 0)


def keep(staged: Path, generation: Path) -> Path:
    """Give a checked generation its place; one that is there already is replaced, whatever was done to it by hand."""
    if generation.exists():
        damaged = generation.with_name(f".{generation.name}.old")
        shutil.rmtree(damaged, ignore_errors=True)
        if damaged.exists():
            raise ApplyError(f"{damaged} cannot be deleted; is something in it immutable? See lsattr -R {damaged}")
        generation.rename(damaged)
        staged.rename(generation)
        shutil.rmtree(damaged)
    else:
        staged.rename(generation)
    return generation


def swap(link: Path, target: Path) -> None:
    """Point a link to a target from one moment to the next."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def link(home: Path, wanted: dict[str, Any], old: dict[str, Any]) -> None:
    """Point links and application folders to what is wanted, and take away those that are not."""
    for path, name in wanted["links"].items():
        swap(Path(path), home / "current" / name)
    for path in set(old.get("links", {})) - set(wanted["links"]):
        Path(path).unlink(missing_ok=True)
    for archive in wanted["archives"]:
        target = Path(archive["target"])
        swap(target.parent / "current", target)
    if any("/systemd/" in path for path in [*wanted["links"], *old.get("links", {})]):
        must("systemctl daemon-reload")


def prune(name: str, current: Path) -> None:
    """Delete all generations but the one that runs and those before it that `deploy --rollback` can return to.

    One that was changed by hand is none of these.
    """
    kept = {str(note["generation"]) for note in before(name, current)[:_KEPT] if not damage(note)} | {str(current)}
    for note in notes.earlier(name):
        if note["generation"] not in kept:
            notes.earlier_path(name, Path(note["generation"])).unlink()
    for old in current.parent.iterdir():
        if _OURS.fullmatch(old.name) and old.is_dir() and not old.is_symlink() and str(old) not in kept:
            shutil.rmtree(old)
    sweep_archives()


def before(name: str, current: Path) -> list[dict[str, Any]]:
    """Return the notes of the generations that ran before the current one, the newest first."""
    found = notes.earlier(name)
    now = next((note["applied"] for note in found if note["generation"] == str(current)), float("inf"))
    return [note for note in found if note["applied"] < now]


def damage(note: dict[str, Any]) -> list[str]:
    """Return how the files of a generation differ from its note, and which are none of its own."""
    wanted = own(note)
    strangers = {str(path) for path in Path(note["generation"]).rglob("*")} - wanted.keys()
    return notes.differences(wanted) + [f"{path} is not ours" for path in sorted(strangers)]


def own(note: dict[str, Any]) -> dict[str, str]:
    """Return the fingerprints of a generation's own files and folders."""
    files = note["files"].items()
    return {path: wanted for path, wanted in files if Path(path).is_relative_to(note["generation"])}


def sweep_archives() -> None:
    """Delete unpacked archives that no generation needs any more; several components can run the same application."""
    known = [note for name in notes.applied() for note in (notes.read_begun(name), *notes.earlier(name))]
    used = {Path(archive["target"]) for note in known for archive in note.get("archives", [])}
    if all(map(notes.read_note, notes.wanted())):
        # Every component had its turn: what still lies ahead is of a run that was interrupted.
        shutil.rmtree(notes.AHEAD, ignore_errors=True)
    homes = [path for path in notes.APPS.glob("*") if path.is_dir() and not path.is_symlink() and path != notes.AHEAD]
    for home in homes:
        for folder in set(home.iterdir()) - used:
            # What was not unpacked by us is somebody's.
            tree = notes.tree_path(folder)
            if not folder.is_symlink() and (tree.exists() or folder.suffix in {".damaged", ".partial"}):
                shutil.rmtree(folder)
                tree.unlink(missing_ok=True)
        if home not in {target.parent for target in used}:
            (home / "current").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                home.rmdir()
