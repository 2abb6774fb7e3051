"""A deploy that is killed, wherever that happens: the next run ends as if nothing had been."""

import json
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.components import ORDER
from lab import Lab
from tests.hosts.conftest import LAB_SETTINGS, ROOT, STATE, Stack, lab_of

pytestmark = pytest.mark.long
_HERE = Path(__file__).parent
_WITH_ARCHIVE = {"demo_data", "migrations", "pgstat_exporter", "tasks", "erp", "erp_load", "grafana"}
# Before each of these calls, the last one being cleaning up after the note.
_PHASES = (
    "packages.install:1",
    "packages.unpack:1",
    "generations.stage:1",
    "notes.write:1",
    "generations.keep:1",
    "generations.swap:1",
    "generations.link:1",
    "units.activate:1",
    "units.wait:1",
    "notes.write:2",
    "notes.write:3",
    "generations.prune:1",
)
_MOMENTS = 20


def _state(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for host, machine in stack.machines.items():
        machine.copy_to_host(_HERE / "host_state.py", "/root/host_state.py")
        of_host = json.loads(machine.succeed("python3 -I /root/host_state.py"))
        found |= {f"{host}: {name}": state for name, state in of_host.items()}
    return found


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Return what is there and what should be, of all that differs; empty when nothing does."""
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    return "\n".join(f"{name}\n  is    {found.get(name)}\n  not   {wanted.get(name)}" for name in names)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab of its own, which tests may take down and up again."""
    with lab_of("test-killed-deploy") as one:
        yield one


def _deploy(stack: Stack, settings: Path = LAB_SETTINGS) -> dict[str, list[str]]:
    run = stack.deploy(settings)
    assert (run.status, run.failed) == (0, {}), run.said
    return run.changed


def test_killed_on_the_host_at_every_phase_of_every_component(lab: Lab, tmp_path: Path) -> None:
    """A host on which each component was killed at each of its phases is in the end like one that was deployed once."""
    _kill_everywhere(lab, tmp_path, ["erp"], LAB_SETTINGS)


def test_killed_at_every_phase_of_firewall_and_backups(lab: Lab, tmp_path: Path) -> None:
    """The same of what a single lab host does not carry, each on the host that has it."""
    settings = tmp_path / "settings.yml"
    others = ("redis", "prometheus", "alertmanager", "grafana", "erp", "tasks")
    wanted = {"network": {"firewall": True}, "postgresql": {"memory": "1GB"}, "backup": {"mode": "deployed"}}
    settings.write_text(yaml.safe_dump(wanted | {name: {"mode": "off"} for name in others}))
    places = {"firewall": "database", "backup_store": "backup", "backup": "database"}
    _kill_everywhere(lab, tmp_path, ["database", "backup"], settings, places)


def _kill_everywhere(
    lab: Lab, folder: Path, hosts: list[str], settings: Path, places: Mapping[str, str] | None = None
) -> None:
    """Compare hosts on which components were killed at each phase with hosts that were deployed once.

    `places` names each component's host; without it, all components of the only host are killed.
    """
    stack = Stack(lab.name, lab.up(hosts))
    _deploy(stack, settings)
    clean = _state(stack)
    places = places or {name: hosts[0] for name in ORDER if name in stack.applied()}
    # The same hosts anew: same addresses, same secrets.
    shutil.copy(STATE / lab.name / "secrets.yml", folder / "secrets.yml")
    lab.down()
    stack = Stack(lab.name, lab.up(hosts))
    shutil.copy(folder / "secrets.yml", STATE / lab.name / "secrets.yml")
    for component, host in places.items():
        for phase in _PHASES:
            if "unpack" not in phase or component in _WITH_ARCHIVE:
                _deploy_killed_at(stack, host, f"{component}:{phase}", settings)
    _deploy(stack, settings)
    assert not (found := _differences(_state(stack), clean)), found
    assert _deploy(stack, settings) == {}


def _deploy_killed_at(stack: Stack, host: str, kill: str, settings: Path) -> None:
    command = [str(ROOT / ".venv/bin/pyinfra"), "-y", "--limit", host, "--data", f"kill={kill}", "inventories/lab.py"]
    environment = os.environ | {"MESSWARTE_LAB": stack.lab, "MESSWARTE_SETTINGS": str(settings)}
    run = subprocess.run(
        [*command, "tests/hosts/killing_stack.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert run.returncode != 0, f"{kill} was not reached: {run.stdout}{run.stderr}"
    component = kill.partition(":")[0]
    said = run.stdout + run.stderr
    assert re.search(rf"\| {component} \n(    \[{host}\] .*\n)*?    \[{host}\] +Killed", said), said


def test_killed_at_random_moments_in_the_controller_and_on_the_host(lab: Lab, tmp_path: Path) -> None:
    """From one configuration to another, killed on the way, and again: all is as after a deploy that was not killed."""
    stack = Stack(lab.name, lab.up(["erp"]))
    other = stack.settings(
        tmp_path,
        postgresql={"max_connections": 90, "slow_query": "2s"},
        redis={"memory": "140MB"},
        prometheus={"retention_size": "3GB"},
        tasks={"concurrency": 3},
        erp={"demo_load": 4.0},
        thresholds={"slow_queries_per_hour": 12.0},
    )
    clean = {}
    for settings in (LAB_SETTINGS, other, LAB_SETTINGS):
        begun = time.monotonic()
        _deploy(stack, settings)
        seconds = time.monotonic() - begun
        clean[settings] = _state(stack)
    seed = time.time_ns() % 10**6
    chance = random.Random(seed)  # noqa: S311
    killed = dict.fromkeys(("controller", "host"), 0)
    for number in range(4 * _MOMENTS):
        wanted = (other, LAB_SETTINGS)[number % 2]
        where, moment = ("controller", "host")[number // 2 % 2], chance.uniform(0.5, seconds)
        process = stack.start(wanted, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        if where == "host":
            # The next program there, as there is none at most moments.
            next_one = "until pkill -9 -f 'python3 -I -$'; do sleep 0.02; done"
            hit = stack.machine.execute(f'timeout 5 sh -c "{next_one}"')[0] == 0
        else:
            hit = process.poll() is None
            process.kill()
        process.wait(600)
        killed[where] += hit
        _deploy(stack, wanted)
        found = _differences(_state(stack), clean[wanted])
        assert not found, f"killed after {moment:.2f} s in the {where} (seed {seed}, number {number}):\n{found}"
        if sum(killed.values()) == _MOMENTS:
            break
    # What came after the deploy's end hit nothing, and does not count.
    assert sum(killed.values()) == _MOMENTS, killed
    assert min(killed.values()) >= _MOMENTS // 4, killed
    assert _deploy(stack, wanted) == {}
