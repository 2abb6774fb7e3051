"""Our pyinfra fact and operations: one round trip to look, one to change."""

import json
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, FileUploadCommand, StringCommand, operation

from deploy.component import Component

# In the order in which they import each other.
_MODULES = {
    "state": ("system", "notes", "state"),
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
    """What `deploy/host/state.py` says: `report` of one component; `components`, `differences` or `health` of all."""

    def command(self, verb: str, component_name: str = "") -> str:
        """Return the command; it changes nothing on the host."""
        return f"python3 -I -c {shlex.quote(program('state', {'verb': verb, 'name': component_name}))}"

    def process(self, output: Any) -> Any:
        """Return the JSON that the program printed."""
        return json.loads("\n".join(output))


@operation()
def component(wanted: Component) -> Generator[StringCommand | FileUploadCommand, None, None]:
    """Bring one component on this host to what is wanted; nothing is sent when it is there already."""
    found = host.get_fact(HostReport, verb="report", component_name=wanted.name)
    if found["digest"] == wanted.digest and not found["drift"]:
        host.noop(f"{wanted.name} is as wanted")
        return
    if wanted.archives:
        yield StringCommand("mkdir -p", _UPLOADS)
    for archive in wanted.archives:
        # What lies there as it was unpacked need not travel again.
        if archive.target in found["unpacked"]:
            continue
        yield FileUploadCommand(str(archive.make()), archive.upload)
    yield StringCommand("python3 -I -", _stdin=[program("apply", wanted.spec())])


@operation()
def only(wanted: list[str]) -> Generator[StringCommand, None, None]:
    """Note which components belong on this host, and take away those that were applied once and do not."""
    found = host.get_fact(HostReport, verb="components")
    if found["wanted"] == wanted and not set(found["applied"]) - set(wanted):
        host.noop("nothing is on this host that does not belong there")
        return
    yield StringCommand("python3 -I -", _stdin=[program("apply", {"name": "stack", "only": wanted})])


@operation(is_idempotent=False)
def roll_back(component_name: str) -> Generator[StringCommand, None, None]:
    """Return to the configuration that a component had before, until the next deploy."""
    found = host.get_fact(HostReport, verb="components")
    if component_name not in found["applied"]:
        host.noop(f"{component_name} is not on this host")
        return
    yield StringCommand(
        "python3 -I -", _stdin=[program("apply", {"name": component_name, "roll_back": component_name})]
    )
