"""How a host differs from what is wanted there, in words: what `deploy --check` lists, and what a deploy changes."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deploy.component import Component

AHEAD = "/opt/messwarte/.ahead"
STRAYS, PACKAGES = "only what is wanted", "packages"
# Of one component: a file that cannot be read any more takes every setting with it.
_SHOWN = 10


def of_host(wanted: Mapping[str, Component], there: list[str], report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the differences by step of a deploy; `there` names what stays on the host, `report` is the host's own."""
    found = {
        STRAYS: strays(there, report),
        PACKAGES: lacking(missing_packages(wanted.values(), report)),
    }
    found |= {name: of_component(part, report) for name, part in wanted.items()}
    return {name: differences for name, differences in found.items() if differences}


def shown(said: list[str], rest: str = "") -> list[str]:
    """Return the first few differences of a component, and how many more there are; `rest` says where."""
    return [*said[:_SHOWN], *([f"{len(said) - _SHOWN} more{rest}"] if said[_SHOWN:] else [])]


def strays(there: list[str], report: Mapping[str, Any]) -> list[str]:
    """Return what a host has that does not belong there."""
    known = report["components"]
    said = [f"{name} goes" for name in sorted(known.keys() - set(there))]
    every_turn = all(known.get(name, {}).get("digest") for name in there)
    if every_turn and any(path.startswith(AHEAD) for path in report["archives"]):
        said.append(f"{AHEAD}, left by a run that was interrupted, goes")
    if not said and report["wanted"] != there:
        said.append("the list of what belongs on the host is not there or another")
    return said


def lacking(packages: Iterable[str]) -> list[str]:
    """Return what is said of packages that a host lacks."""
    return [f"package {name} is missing" for name in packages]


def missing_packages(wanted: Iterable[Component], report: Mapping[str, Any]) -> list[str]:
    """Return the names of the Debian packages that a host lacks."""
    return sorted({name for part in wanted for name in part.packages} - set(report["packages"]))


def of_component(wanted: Component, report: Mapping[str, Any]) -> list[str]:
    """Return what was changed by hand since a component was applied, and what is wanted otherwise now."""
    found = report["components"].get(wanted.name)
    if found is None:
        return ["is not there yet"]
    if not found["digest"]:
        return ["its deploy has not finished", *found["drift"]]
    news = [] if found["digest"] == wanted.digest else list(_news(wanted, found)) or ["what is wanted is new"]
    return [*found["drift"], *news]


def _news(wanted: Component, found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files that all may read, programs and units that are wanted otherwise than when they were applied."""
    then = found["contents"]
    now = {file.path: f"{_sha256(file.content)} {file.mode:o}" for file in wanted.files if file.mode & 0o004}
    for path in sorted(then.keys() | now.keys()):
        if path not in now:
            yield f"{path} goes"
        elif path not in then:
            yield f"{path} is new"
        elif then[path] != now[path]:
            yield f"{path} changes"
    targets = {archive.target for archive in wanted.archives}
    yield from (f"{target} is new" for target in sorted(targets - set(found["archives"])))
    yield from (f"{target} goes" for target in sorted(set(found["archives"]) - targets))
    units = {unit.name for unit in wanted.units}
    yield from (f"{unit} is new" for unit in sorted(units - set(found["units"])))
    yield from (f"{unit} goes" for unit in sorted(set(found["units"]) - units))


def _sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
