"""A deploy that is killed, wherever that happens: the next run ends as if nothing had been."""

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
    stack.machine.copy_to_host(_HERE / "host_state.py", "/root/host_state.py")
    return dict(json.loads(stack.machine.succeed("python3 -I /root/host_state.py")))


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
    stack = Stack(lab.name, lab.up(["erp"]))
    _deploy(stack)
    clean = _state(stack)
    components = [name for name in ORDER if name in stack.applied()]
    # The same host anew: same address, same secrets.
    shutil.copy(STATE / lab.name / "secrets.yml", tmp_path / "secrets.yml")
    lab.down()
    stack = Stack(lab.name, lab.up(["erp"]))
    shutil.copy(tmp_path / "secrets.yml", STATE / lab.name / "secrets.yml")
    for component in components:
        for phase in _PHASES:
            if "unpack" not in phase or component in _WITH_ARCHIVE:
                _deploy_killed_at(stack, f"{component}:{phase}")
    _deploy(stack)
    assert not (found := _differences(_state(stack), clean)), found
    assert _deploy(stack) == {}


def _deploy_killed_at(stack: Stack, kill: str) -> None:
    command = [str(ROOT / ".venv/bin/pyinfra"), "-y", "--data", f"kill={kill}", "inventories/lab.py"]
    environment = os.environ | {"MESSWARTE_LAB": stack.lab}
    run = subprocess.run(
        [*command, "tests/hosts/killing_stack.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert run.returncode != 0, f"{kill} was not reached: {run.stdout}{run.stderr}"
    component = kill.partition(":")[0]
    assert f"| {component} \n    [erp] Killed" in run.stdout + run.stderr, run.stdout + run.stderr


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
    for number in range(_MOMENTS):
        wanted = (other, LAB_SETTINGS)[number % 2]
        where, moment = ("controller", "host")[number // 2 % 2], chance.uniform(0.5, seconds)
        process = stack.start(wanted, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        if where == "host":
            stack.machine.execute("pkill -9 -f 'python3 -I -$'")
        else:
            process.kill()
        process.wait(600)
        _deploy(stack, wanted)
        found = _differences(_state(stack), clean[wanted])
        assert not found, f"killed after {moment:.2f} s in the {where} (seed {seed}, number {number}):\n{found}"
