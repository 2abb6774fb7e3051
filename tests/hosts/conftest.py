"""One lab host with the whole stack, shared by the tests; deployed by pyinfra as an operator would."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lab import Lab, Machine
from proof.access import Access

ROOT = Path(__file__).resolve().parent.parent.parent
# In the checkout, where inventories/lab.py looks; a test run that was killed is cleaned up by the next one.
STATE = ROOT / ".lab"
LAB_SETTINGS = ROOT / "inventories/lab.yml"


@dataclass
class Run:
    """How a deploy ended: exit status, what was said, and `{operation: hosts}` by outcome."""

    status: int
    said: str
    changed: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    same: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stack:
    """A lab that carries the stack; `deploy` is `pyinfra inventories/lab.py deploy/stack.py`."""

    lab: str
    machines: dict[str, Machine]

    @property
    def machine(self) -> Machine:
        """The host, where there is but one."""
        (machine,) = self.machines.values()
        return machine

    @property
    def has_grafana(self) -> bool:
        """Whether Grafana could be had: a package file on this machine, or its repository within reach."""
        return self.machine.execute("test -d /etc/messwarte/grafana")[0] == 0

    def applied(self) -> set[str]:
        """Return the components that are on the host."""
        return set(self.machine.succeed("ls /etc/messwarte").split())

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets that the first deploy made."""
        return dict(yaml.safe_load((STATE / self.lab / "secrets.yml").read_text()))

    def client(self, port: int, host: str | None = None) -> httpx.Client:
        """Return a client of a service that passes the gate of a host as the operator."""
        machine = self.machines[host] if host else self.machine
        return Access.of(STATE / self.lab / "secrets.yml").client(f"https://{machine.address}:{port}")

    def start(self, settings: Path = LAB_SETTINGS, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
        """Start a deploy."""
        command = [str(ROOT / ".venv/bin/pyinfra"), "-y", "--json", *arguments, "inventories/lab.py", "deploy/stack.py"]
        environment = os.environ | {"MESSWARTE_LAB": self.lab, "MESSWARTE_SETTINGS": str(settings)}
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)

    def deploy(self, settings: Path = LAB_SETTINGS, *arguments: str) -> Run:
        """Deploy; return what changed."""
        process = self.start(settings, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, said = process.communicate(timeout=600)
        if not out.startswith("{"):
            return Run(process.returncode, said)
        operations = (json.loads(out)["results"] or {}).get("operations", [])
        by = {
            key: {one["name"]: one[key] for one in operations if one[key]} for key in ("success", "error", "no_change")
        }
        return Run(process.returncode, said, by["success"], by["error"], by["no_change"])

    def settings(self, folder: Path, **changes: Any) -> Path:
        """Write the lab's settings with some sections changed, and return the file."""
        wanted = yaml.safe_load(LAB_SETTINGS.read_text())
        for section, values in changes.items():
            wanted[section] = wanted.get(section, {}) | values if isinstance(values, dict) else values
        path = folder / "settings.yml"
        path.write_text(yaml.safe_dump(wanted))
        return path


def started(machine: Machine) -> dict[str, str]:
    """Return when each service of the stack was started."""
    units = "'messwarte-*.service' 'prometheus*.service' 'redis-*' 'grafana-*' 'postgresql@*' 'postfix*.service'"
    shown = machine.succeed(f"systemctl show --property=Id,Type,ExecMainStartTimestampMonotonic {units}")
    found = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n")]
    # What a timer starts may have started meanwhile.
    return {one["Id"]: one["ExecMainStartTimestampMonotonic"] for one in found if one["Type"] != "oneshot"}


def bring_up(lab: Lab, hosts: list[str]) -> Stack:
    """Boot the hosts of a lab and deploy the stack to them."""
    stack = Stack(lab.name, lab.up(hosts))
    first = stack.deploy()
    assert first.status == 0, first.said
    assert not first.failed
    return stack


@contextlib.contextmanager
def lab_of(name: str) -> Iterator[Lab]:
    """A lab whose hosts a test may do anything to; skips where this user cannot boot hosts."""
    if os.geteuid() != 0:
        pytest.skip("only root can boot hosts; run: sudo ./messwarte test")
    lab = Lab(name, STATE)
    lab.down()
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One host that carries everything."""
    with lab_of("test-stack") as lab:
        yield bring_up(lab, ["erp"])


@pytest.fixture
def mended(stack: Stack) -> Iterator[Stack]:
    """The stack for a test that changes it: in the end the host is as the lab's settings want it."""
    yield stack
    last = stack.deploy()
    assert last.status == 0, last.said
