"""A component's units: started, reloaded or restarted as its changed files ask for, waited for, stopped."""

import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deploy.host import notes
from deploy.host.system import (
    UNITS,
    ApplyError,
    bring_back,
    enabled_by,
    journal,
    must,
    not_as_packaged,
    set_aside,
    shell,
    show,
    unit_files,
    unit_states,
)

# What packages bring, and what systemd's generators make of other files; all else is of the host's own people.
_PACKAGED, _GENERATED = "/usr/lib/systemd/", "/run/systemd/generator"
_LONGEST_STOP = 120


def wanted_states(units: list[dict[str, Any]]) -> dict[str, str]:
    """Return the state of units that are to run, and of those that are enabled only, the end of it."""
    states = unit_states([unit["name"] for unit in units if unit["start"] or unit["enable"]])
    started = {unit["name"] for unit in units if unit["start"]}
    return {name: state if name in started else f"/{state.partition('/')[2]}" for name, state in states.items()}


def claim(spec: dict[str, Any], known: dict[str, list[str]]) -> bool:
    """Take strangers' files out of a component's units, and masks off them; say whether there were any.

    The units are ours whole. A stranger's file stays where it is, under a name that systemd does not read; a package's
    is taken anew out of the package. What starts them at a boot is what was noted of it.
    """
    names = [unit["name"] for unit in spec["units"]]
    for name in known.keys() & set(names):
        _enable_again(name, known[name])
    hidden = [name for name, state in unit_states(names).items() if "/masked" in state]
    for name in hidden:
        must(f"systemctl unmask --quiet {name}; systemctl unmask --quiet --runtime {name}")
    strangers = {path for name in names for path in unit_files(name) if _by_hand(path)} - spec["links"].keys()
    for name in set(notes.applied()) - {spec["name"]} if strangers else ():
        begun = notes.read_begun(name)
        if any(strangers & set(unit_files(unit)) for unit in begun.get("all_units", [])):
            # What is for the units of several components; the others have to be started without it, too.
            notes.write(notes.note_path(name), begun | {"digest": None})
    for path in strangers:
        set_aside(Path(path))
    if strangers or hidden:
        must("systemctl daemon-reload")
    changed = {path: package for name in names for path, package in not_as_packaged(unit_files(name)).items()}
    for path, package in changed.items():
        bring_back(path, package)
    if changed:
        must("systemctl daemon-reload")
    return bool(strangers or changed)


def _enable_again(name: str, wanted: list[str]) -> None:
    """Let a unit be started at a boot by what has started it before, and by nothing else."""
    now = enabled_by(name)
    for folder in set(now) - set(wanted):
        (UNITS / folder / name).unlink()
    if set(wanted) - set(now):
        must(f"systemctl enable --quiet {name}")


def _by_hand(path: str) -> bool:
    if path.startswith(_PACKAGED) and Path(path).parent.suffix == ".d":
        return shell(f"dpkg-query --search {shlex.quote(path)}").returncode != 0
    return not path.startswith((_PACKAGED, _GENERATED))


def masked(units: list[str]) -> list[str]:
    """Return those of some units that are kept from running."""
    return [unit for unit, state in unit_states(units).items() if state.endswith("/masked")]


def keep_idle(units: list[str]) -> None:
    """Mask units again that were kept from running, and are not any more."""
    for unit in set(units) - set(masked(units)):
        must(f"systemctl disable --quiet --now {unit}; systemctl mask --quiet {unit}")


def activate(spec: dict[str, Any], changed: set[str] | None) -> None:
    """Restart or reload what the changed files ask for; None means that nothing is known, so restart."""
    states = unit_states([unit["name"] for unit in spec["units"]])
    for unit in spec["units"]:
        name, state = unit["name"], states.get(unit["name"], "")
        running = state.startswith("active/")
        if unit["enable"] and not state.endswith("/enabled"):
            must(f"systemctl enable --quiet {name}")
        gentle = changed is not None and all(file in unit["reload_for"] for file in changed)
        if running and gentle and changed:
            must(f"systemctl reload {name}")
        elif unit["start"] and not (running and gentle):
            restart(name, spec["timeout"])
    current = notes.ETC / spec["name"] / "current"
    for command in spec["after"]:
        must(command, current)


def restart(unit: str, timeout: float) -> None:
    """Restart a unit; `systemctl restart` itself would wait without end while systemd tries again and again."""
    # A unit that gave up after repeated failures refuses to start until this is said.
    shell(f"systemctl reset-failed {unit}")
    _halt(unit, max(timeout, _LONGEST_STOP))
    must(f"systemctl start --no-block {unit}")
    deadline = time.monotonic() + timeout
    while (shown := show(unit, "ActiveState", "SubState"))["ActiveState"] != "active":
        again = shown["SubState"].startswith("auto-restart")
        if shown["ActiveState"] == "failed" or again or time.monotonic() > deadline:
            raise ApplyError(f"{unit} did not start ({shown['SubState']}):\n{journal(unit)}")
        time.sleep(0.05)


def _halt(unit: str, timeout: float = _LONGEST_STOP) -> None:
    """Stop a unit; one that systemd lets take as long as it likes is not waited for without end. Raises ApplyError."""
    must(f"systemctl stop --no-block {unit}")
    deadline = time.monotonic() + timeout
    while show(unit, "ActiveState")["ActiveState"] not in {"inactive", "failed"}:
        if time.monotonic() > deadline:
            raise ApplyError(f"{unit} has not stopped after {timeout:.0f} s:\n{journal(unit)}")
        time.sleep(0.05)


def wait(spec: dict[str, Any]) -> None:
    """Wait until a component is ready and its units run. Raises ApplyError, at once where one of them fails."""
    deadline = time.monotonic() + spec["timeout"]
    units = [unit["name"] for unit in spec["units"] if unit["start"]]
    for command in [*spec["ready"], *(f"systemctl is-active {unit}" for unit in units)]:
        while (run := shell(command)).returncode:
            failed = [unit for unit in units if _fails(unit)]
            if failed or time.monotonic() > deadline:
                journals = "".join(journal(unit) for unit in units)
                why = f"{failed[0]} failed" if failed else f"not ready after {spec['timeout']} s"
                raise ApplyError(f"{why}: `{command}` says:\n{run.stdout.strip()[-1000:]}\n{journals}")
            time.sleep(0.1)


def _fails(unit: str) -> bool:
    """Say whether a unit gave up, or is started for the third time in vain."""
    shown = show(unit, "ActiveState", "SubState", "NRestarts")
    return shown["ActiveState"] == "failed" or (
        shown["SubState"].startswith("auto-restart") and int(shown["NRestarts"]) >= 2
    )


def stop(units: Iterable[str]) -> None:
    """Stop units for good."""
    for unit in sorted(units):
        if show(unit, "LoadState")["LoadState"] != "not-found":
            _halt(unit)
            # Not all can be disabled; and of a unit that is a link, this takes the link away.
            shell(f"systemctl disable --quiet {unit}")
