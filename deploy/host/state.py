"""Says how the components stand against their notes: one round trip, nothing changed."""

import json
from pathlib import Path
from typing import Any

from deploy.host import notes
from deploy.host.system import installed_packages, missing_packages, shell, unit_files, unit_states


def drift(note: dict[str, Any]) -> list[str]:
    """Return what no longer is as the note says."""
    found = [said for path, wanted in note["files"].items() if (said := _difference(Path(path), wanted))]
    found += [f"{archive['target']} is missing" for archive in note["archives"] if not Path(archive["target"]).is_dir()]
    found += [f"package {name}" for name in missing_packages(note["packages"])]
    files = {unit: unit_files(unit) for unit in note["unit_files"]}
    found += [f"{unit} is made of {now}" for unit, now in files.items() if now != note["unit_files"][unit]]
    states = unit_states(list(note["units"]))
    found += [f"{unit} is {states.get(unit)}" for unit, good in note["units"].items() if states.get(unit) != good]
    found += [name for name, (command, wanted) in note["probes"].items() if notes.probe(command) != wanted]
    return found


def _difference(path: Path, wanted: str) -> str:
    """Return how a file differs from its fingerprint; empty when it does not."""
    found = notes.fingerprint(path)
    if found == wanted:
        return ""
    if not found:
        return f"{path} is missing"
    if found.startswith("link") or wanted.startswith("link"):
        return f"{path} leads elsewhere"
    changed = [
        f"{part} {now} instead of {then}" if part else "content"
        for part, now, then in zip(("", "mode", "owner"), found.split(), wanted.split(), strict=True)
        if now != then
    ]
    return f"{path} ({', '.join(changed)})"


def report(name: str) -> dict[str, Any]:
    """Return the digest that was applied, and what has drifted since."""
    note = notes.read_note(name)
    return {"digest": note["digest"], "drift": drift(note)} if note else {"digest": None, "drift": []}


def differences(name: str) -> list[str]:
    """Return what an operator reads: what was changed by hand since a component was applied."""
    note = notes.read_note(name)
    return drift(note) if note else ["its deploy has not finished"]


def health(name: str) -> dict[str, Any]:
    """Return one line of `status`: healthy when its units run and every readiness check passes."""
    note = notes.read_note(name)
    if note is None:
        trouble, note = ["its deploy has not finished; run the deploy again"], {"url": None, "detail": ""}
    else:
        states = unit_states(list(note["units"]))
        trouble = [f"{unit} is {states.get(unit)}" for unit, good in note["units"].items() if states.get(unit) != good]
        trouble = trouble or _not_ready(note["ready"])
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
            return [(run.stdout.strip().splitlines() or [f"`{command}` ended with {run.returncode}"])[-1]]
    return []


def main(arguments: dict[str, Any]) -> None:
    """Print what a deploy has to know, or the differences or health of the components that belong here."""
    if arguments["verb"] == "report":
        components = {name: report(name) for name in notes.applied()}
        result: Any = {
            "wanted": notes.wanted(),
            "components": components,
            "packages": sorted(installed_packages()),
            "archives": [*map(str, notes.APPS.glob("*/*/"))],
        }
    elif arguments["verb"] == "differences":
        result = {name: differences(name) for name in notes.wanted()}
    else:
        result = [health(name) for name in notes.wanted()]
    print(json.dumps(result))  # noqa: T201
