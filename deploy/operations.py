"""Our pyinfra fact and operations: one round trip to look at a host, one to change a component."""

import json
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FactBase, FileUploadCommand, StringCommand, operation

from deploy import differences
from deploy.component import Archive, Component

# In the order in which they import each other.
_MODULES = {
    "state": ("system", "notes", "generations", "state"),
    "apply": ("system", "notes", "packages", "generations", "units", "apply"),
}
_UPLOADS = "/var/lib/messwarte/uploads"
_LOADER = """\
import sys, types
for name, source in {sources!r}.items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    parent, _, leaf = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], leaf, module)
sys.modules["deploy.host.{module}"].main({arguments!r})
"""


def program(module: str, arguments: dict[str, Any]) -> str:
    """Return a self-contained Python program that calls `main` of one of deploy/host's modules."""
    folder = Path(__file__).parent / "host"
    sources = {"deploy": "", "deploy.host": ""}
    sources |= {f"deploy.host.{name}": (folder / f"{name}.py").read_text() for name in _MODULES[module]}
    return _LOADER.format(sources=sources, module=module, arguments=arguments)


class HostReport(FactBase[Any]):
    """What `deploy/host/state.py` says of all components: `report` or `health`."""

    def command(self, verb: str) -> str:
        """Return the command; it changes nothing on the host."""
        return f"python3 -I -c {shlex.quote(program('state', {'verb': verb}))}"

    def process(self, output: Any) -> Any:
        """Return the JSON that the program printed."""
        return json.loads("\n".join(output))


# By host, and by whether operations are planned or carried out.
_reports: dict[tuple[str, bool], Any] = {}


def report() -> Any:
    """Return how this host is: asked once, and once more after each change of ours."""
    key = (host.name, host.state.is_executing)
    if key not in _reports:
        _reports[key] = host.get_fact(HostReport, verb="report")
    return _reports[key]


def _apply(spec: dict[str, Any]) -> StringCommand:
    """Return the command that changes this host; what is known of it ends here."""
    known = _reports.pop((host.name, host.state.is_executing), {"busy": False})
    if known["busy"] and host.state.is_executing:
        logger.warning(f"another deploy is at work on {host.name}; this one waits for it, at most 5 minutes")
    return StringCommand("python3 -I -", _stdin=[program("apply", spec)])


def _tell(said: list[str]) -> None:
    """Say what is changed on a host that has been deployed before."""
    if host.state.is_executing:
        for difference in differences.shown(said):
            host.log(difference)


def _upload(archives: list[Archive]) -> Generator[StringCommand | FileUploadCommand, None, None]:
    if archives:
        yield StringCommand("mkdir -p", _UPLOADS)
    for archive in archives:
        yield FileUploadCommand(str(archive.make()), archive.upload)


@operation()
def packages(wanted: dict[str, Component]) -> Generator[StringCommand | FileUploadCommand, None, None]:
    """Install all components' missing Debian packages in one call of apt, and unpack new archives meanwhile."""
    missing = differences.missing_packages(wanted.values(), report())
    if not missing:
        host.noop("all packages are installed")
        return
    if report()["components"]:
        _tell(differences.lacking(missing))
    drop_ins = [path for part in wanted.values() for path in part.links if ".service.d/" in path]
    archives = {archive.target: archive for part in wanted.values() for archive in part.archives}
    absent = [archive for target, archive in archives.items() if target not in report()["archives"]]
    yield from _upload(absent)
    idle = [unit for part in wanted.values() for unit in part.idle]
    spec = {"install": missing, "idle": idle, "drop_ins": drop_ins}
    yield _apply({"name": "packages", **spec, "archives": [archive.spec for archive in absent]})


@operation()
def component(wanted: Component | None) -> Generator[StringCommand | FileUploadCommand, None, None]:
    """Bring one component on this host to what is wanted; nothing is sent when it is there already, or None."""
    if wanted is None:
        host.noop("is not wanted on this host")
        return
    said = differences.of_component(wanted, report())
    if not said:
        host.noop(f"{wanted.name} is as wanted")
        return
    if wanted.name in report()["components"]:
        _tell(said)
    there = report()["archives"]
    absent = [
        one for one in wanted.archives if one.target not in there and f"{differences.AHEAD}/{one.sha256}" not in there
    ]
    yield from _upload(absent)
    yield _apply(wanted.spec())


@operation()
def only(wanted: list[str]) -> Generator[StringCommand, None, None]:
    """Note which components belong on this host; take away others, and what an interrupted run left lying ahead."""
    said = differences.strays(wanted, report())
    if not said:
        host.noop("nothing is on this host that does not belong there")
        return
    if report()["components"]:
        _tell(said)
    yield _apply({"name": "stack", "only": wanted})


@operation()
def nothing() -> Generator[StringCommand, None, None]:
    """Change nothing; for a step whose name says something."""
    host.noop("nothing is changed")
    yield from ()


@operation(is_idempotent=False)
def roll_back(component_name: str) -> Generator[StringCommand, None, None]:
    """Return to the configuration that a component had before, until the next deploy."""
    if component_name not in report()["components"]:
        host.noop(f"{component_name} is not on this host")
        return
    yield _apply({"name": component_name, "roll_back": component_name})


@operation(is_idempotent=False)
def stop(units: list[str]) -> Generator[StringCommand, None, None]:
    """Stop units until the next deploy starts them again."""
    yield StringCommand("systemctl stop", *units)
