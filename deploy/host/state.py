"""Says how the components stand against their notes: one round trip, nothing changed."""

import functools
import json
from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.host import generations, notes
from deploy.host.system import enabled_by, installed_packages, look_at_units, missing_packages, not_as_packaged, shell

_NAMED = 3
_tree = functools.cache(notes.tree)


class Look:
    """What takes a call of another program, for all components at once: their units, and their probes side by side."""

    def __init__(self, pool: Executor, begun: Iterable[dict[str, Any]], *, probing: bool) -> None:
        """Begin to ask about components by their notes; the probes are waited for where their answers are needed."""
        commands = {command for note in begun if probing for command, _ in note.get("probes", {}).values()}
        self._probes = {command: pool.submit(notes.probe, command) for command in commands}
        names = {unit for note in begun for key in ("units", "unit_files", "masked") for unit in note.get(key, ())}
        self.units = look_at_units(sorted(names))

    def probe(self, command: str) -> list[str]:
        """Return the lines that a probe prints."""
        return self._probes[command].result()

    def state(self, unit: str) -> str:
        """Return `ActiveState/UnitFileState` of a unit."""
        return self.units[unit].state

    def files(self, unit: str) -> list[str]:
        """Return the files that define a unit."""
        return self.units[unit].files


def drift(note: dict[str, Any], look: Look) -> list[str]:
    """Return what no longer is as the note says."""
    found = generations.damage(note)
    for path, unit in generations.unread(note, look.units).items():
        found.append(f"{path} was touched after {unit} had read it")
    others = note["files"].keys() - generations.own(note).keys()
    found += notes.differences({path: note["files"][path] for path in sorted(others)})
    for path, wanted in note.get("folders", {}).items():
        if (now := notes.rights(Path(path))) != wanted:
            found.append(f"{path} is {now} instead of {wanted}" if now else f"{path} is missing")
    for archive in note["archives"]:
        found += _tree_drift(Path(archive["target"]), note.get("trees", {}).get(archive["target"]))
    found += [f"package {name} is missing" for name in missing_packages(note["packages"])]
    for name, wanted in note.get("users", {}).items():
        if (now := notes.account(name)) != wanted:
            found.append(f"user {name} has {now} instead of {wanted}")
    found += _unit_drift(note, look)
    for name, (command, wanted) in note["probes"].items():
        now_lines = look.probe(command)
        if now_lines[-1:] and now_lines[-1].startswith("status ") and now_lines[-1] not in wanted:
            found.append(f"{name}: cannot be asked: {now_lines[0]}")
            continue
        found += [f"{name}: now {line}" for line in now_lines if line not in wanted]
        found += [f"{name}: no longer {line}" for line in wanted if line not in now_lines]
    return found


def _unit_drift(note: dict[str, Any], look: Look) -> list[str]:
    found = []
    for unit, files in note["unit_files"].items():
        now_files = look.files(unit)
        found += [f"{unit} has {path}" for path in now_files if path not in files]
        found += [f"{unit} lacks {path}" for path in files if path not in now_files]
        found += [f"{unit} has {path}, which is not as its package brought it" for path in not_as_packaged(files)]
    for unit, wanted_by in note.get("enabled_by", {}).items():
        # By nothing: that is told by its state.
        if (now_by := enabled_by(unit)) and now_by != wanted_by:
            found.append(f"{unit} is enabled by {' '.join(now_by)} instead of {' '.join(wanted_by)}")
    found += _state_drift(note, look)
    return found + [
        f"{unit} is {look.state(unit)} instead of masked"
        for unit in note.get("masked", [])
        if not look.state(unit).endswith("/masked")
    ]


def _state_drift(note: dict[str, Any], look: Look) -> list[str]:
    states = {unit: look.state(unit) for unit in note["units"]}
    return [
        f"{unit} is {states[unit]}"
        for unit, good in note["units"].items()
        # Of a unit that is enabled only, the note has no more than that.
        if good not in {states[unit], f"/{states[unit].partition('/')[2]}"}
    ]


def _tree_drift(target: Path, wanted: str | None) -> list[str]:
    """Return the files of an unpacked archive that were changed, the first few by name."""
    found = _tree(target)
    if not found:
        return [f"{target} is missing"]
    if notes.tree_digest(found) == wanted:
        return []
    then = notes.read_tree(target)
    names = sorted(name for name in found.keys() | then.keys() if found.get(name) != then.get(name))
    said = [
        f"{target}/{name} {'is missing' if name not in found else 'was changed' if name in then else 'is not ours'}"
        for name in names[:_NAMED]
    ]
    return said + ([f"{len(names) - _NAMED} more below {target}"] if names[_NAMED:] else []) or [
        f"{target} was unpacked anew"
    ]


def report(name: str, note: dict[str, Any], look: Look) -> dict[str, Any]:
    """Return what was applied, by its hash and by its parts, and what has drifted since."""
    if "files" not in note:
        return {"digest": None, "drift": []}
    found = drift(note, look)
    for earlier in notes.earlier(name):
        if earlier["generation"] != note["generation"]:
            found += generations.damage(earlier)
    return {
        "digest": note["digest"],
        # A file's name may be no text at all.
        "drift": [said.encode(errors="backslashreplace").decode() for said in found],
        "contents": note.get("contents", {}),
        "archives": [archive["target"] for archive in note["archives"]],
        "units": note["all_units"],
    }


def archives() -> list[str]:
    """Return the folders of archives that lie there as they were unpacked, or were unpacked ahead."""
    known = {archive["target"] for name in notes.applied() for archive in notes.read_begun(name).get("archives", [])}
    whole = [path for path in sorted(known) if (found := _tree(Path(path))) and found == notes.read_tree(Path(path))]
    return [*whole, *map(str, notes.AHEAD.glob("*"))]


def health(name: str, note: dict[str, Any], look: Look) -> dict[str, Any]:
    """Return one line of `status`: healthy when its units run and every readiness check passes."""
    if not note.get("digest"):
        trouble, note = ["its deploy has not finished; run the deploy again"], {"url": None, "detail": ""}
    else:
        trouble = _state_drift(note, look) or _not_ready(note["ready"])
    return {
        "component": name,
        "healthy": not trouble,
        "url": note["url"],
        "detail": "; ".join(trouble) or note["detail"],
    }


def _not_ready(commands: list[str]) -> list[str]:
    for command in commands:
        run = shell(command)
        if run.returncode:
            said = run.stdout.strip().splitlines() or [f"`{command}` ended with {run.returncode}"]
            return [" ".join(line.strip() for line in said[-2:])]
    return []


def _report(pool: Executor) -> dict[str, Any]:
    begun = {name: notes.read_begun(name) for name in notes.applied()}
    look = Look(pool, begun.values(), probing=True)
    # While the probes are at work.
    for target in {archive["target"] for note in begun.values() for archive in note.get("archives", ())}:
        _tree(Path(target))
    return {
        "busy": notes.busy(),
        "wanted": notes.wanted(),
        "components": {name: report(name, note, look) for name, note in begun.items()},
        "packages": sorted(installed_packages()),
        "archives": archives(),
    }


def _healths(pool: Executor) -> list[dict[str, Any]]:
    begun = {name: notes.read_begun(name) for name in notes.wanted()}
    look = Look(pool, begun.values(), probing=False)
    return [health(name, note, look) for name, note in begun.items()]


def main(arguments: dict[str, Any]) -> None:
    """Print what a deploy has to know, or the health of the components that belong here."""
    # Two probes at a time: a server that is full lets in three sessions of its superuser.
    with ThreadPoolExecutor(2) as pool:
        print(json.dumps(_report(pool) if arguments["verb"] == "report" else _healths(pool)))  # noqa: T201
