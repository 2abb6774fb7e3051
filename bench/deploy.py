"""What a deploy costs: a run without changes beside tuned Ansible, and a first run beside plain apt.

Without changes: the whole stack on one lab host, pyinfra and both playbooks of bench/ansible_peer.py in turns. Before
that, each playbook is seen to manage the same outcome: what is changed by hand it restores, and pyinfra then finds no
drift. First run: `deploy/stack.py` on a fresh host, and `apt-get update` and `install` of the same packages on another
fresh one, in turns; our programs' archives are made already (.cache/apps), and the base tree has a package index.
"""

import argparse
import contextlib
import importlib.metadata
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ansible_peer
from bench.ansible_peer import PLAYBOOKS, Peer
from bench.report import Target, as_json, say
from deploy import apps
from deploy.component import Component
from deploy.context import components, make_plan
from deploy.postgresql.deploy import PSQL
from deploy.topology import GROUPS, open_secrets
from lab import Lab, Machine

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
_LAB = "bench-deploy"
_PYINFRA = [str(ROOT / ".venv/bin/pyinfra"), "-y", "inventories/lab.py", "deploy/stack.py"]
_SECONDS, _RATIO, _FIRST_RATIO = 3.0, 1 / 5, 2.0
_APT = "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && apt-get install -y -qq --no-install-recommends {}"
_MEMBER = "SELECT pg_has_role('messwarte_monitor', 'pg_monitor', 'member')"
_FILE, _MODE = "/etc/messwarte/prometheus/current/prometheus.yml", "/etc/messwarte/redis/current/redis.conf"
# What is done by hand, and what then holds again once it is restored.
_DAMAGE = {
    "a file": (f"echo '# by hand' >> {_FILE}", f"! grep -q 'by hand' {_FILE}"),
    "a mode": (f"chmod 0666 {_MODE}", f"test $(stat -c %a {_MODE}) = 644"),
    "a unit": ("systemctl stop prometheus-node-exporter", "systemctl is-active prometheus-node-exporter"),
    "a grant": (f"{PSQL} -c 'REVOKE pg_monitor FROM messwarte_monitor'", f'{PSQL} -c "{_MEMBER}" | grep -x t'),
}


@dataclass(frozen=True)
class _Host:
    """A lab host as `make_plan` looks at one of pyinfra's."""

    name: str
    machine: Machine
    data: Mapping[str, Any]
    groups: tuple[str, ...] = GROUPS

    def get_fact(self, fact: Any, **arguments: Any) -> Any:
        return fact().process(self.machine.succeed(fact().command(**arguments)).splitlines())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark as root; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="bench deploy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns without changes, of which the median counts (7)")
    parser.add_argument("--first", type=int, default=2, help="first runs of each side (2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    load = [os.getloadavg()[0]]
    programs = ansible_peer.install()
    first, apt = [], []
    with _lab() as lab:
        for number in range(options.first):
            apt.append(_plain_apt(_fresh(lab)))
            machine = _fresh(lab)
            first.append(_first_run(machine))
            load.append(os.getloadavg()[0])
            say(f"first run {number + 1}: {first[-1]['whole']} s, apt {apt[-1]} s")
        with tempfile.TemporaryDirectory(prefix="messwarte-ansible-") as folder:
            peer = Peer(programs, Path(folder), machine, _describe(machine))
            restored = {name: _restored(peer, name, machine) for name in PLAYBOOKS}
            again = _in_turns(peer, options.rounds)
    load.append(os.getloadavg()[0])
    ours = statistics.median(again["pyinfra"])
    whole = [round(one["whole"] - one["demo_data"], 1) for one in first]
    figures = {
        "load of the machine, 1 minute": [round(one, 2) for one in load],
        "no change, seconds": {name: _spread(times) for name, times in again.items()},
        "restored by hand's change": restored,
        "first run, seconds by operation": first,
        "first run without demo data, seconds": _spread(whole),
        "plain apt, seconds": _spread(apt),
    }
    targets = [
        Target("seconds of a run without changes, median", round(ours, 2), _SECONDS),
        *(
            Target(f"time of it, to Ansible's ({name})", round(ours / statistics.median(again[name]), 3), _RATIO)
            for name in PLAYBOOKS
        ),
        Target(
            "time of a first run without demo data, to apt's",
            round(statistics.median(whole) / statistics.median(apt), 2),
            _FIRST_RATIO,
        ),
    ]
    if options.json:
        versions = {"pyinfra": importlib.metadata.version("pyinfra"), "ansible-core": ansible_peer.version(programs)}
        print(as_json(versions, figures, targets))  # noqa: T201
    else:
        print(*(f"{name}: {value}" for name, value in figures.items()), *targets, sep="\n")  # noqa: T201
    return 0 if all(target.ok for target in targets) else 1


@contextlib.contextmanager
def _lab() -> Iterator[Lab]:
    lab = Lab(_LAB, STATE)
    lab.down(say)
    try:
        yield lab
    finally:
        lab.down(say)


def _fresh(lab: Lab) -> Machine:
    """Return a host that nothing was done to."""
    lab.down(say)
    return lab.up(["erp"], say)["erp"]


def _describe(machine: Machine) -> dict[str, Component]:
    """Return what our deploy brings to a host, whose secrets may be others than those of the host before."""
    open_secrets.cache_clear()
    secrets = STATE / _LAB / "secrets.yml"
    data = {"settings": ROOT / "inventories/lab.yml", "secrets": secrets, "address": machine.address}
    host = _Host("erp", machine, {key: str(value) for key, value in data.items()})
    return components(make_plan(host, [host]))


def _plain_apt(machine: Machine) -> float:
    parts = _describe(machine)
    names = sorted({name for part in parts.values() for name in part.packages})
    begun = time.monotonic()
    machine.succeed(_APT.format(" ".join(names)), timeout=600)
    return round(time.monotonic() - begun, 1)


def _first_run(machine: Machine) -> dict[str, float]:
    """Deploy to a fresh host; return the seconds of the whole and of each operation."""
    apps.make_all("3.13", os.uname().machine)
    begun = time.monotonic()
    starts: dict[str, float] = {}
    said = []
    environment = os.environ | {"MESSWARTE_LAB": _LAB}
    streams: dict[str, Any] = {"stderr": subprocess.STDOUT, "stdout": subprocess.PIPE}
    with subprocess.Popen(_PYINFRA, cwd=ROOT, env=environment, text=True, **streams) as process:
        for line in process.stdout or ():
            said.append(line)
            if line.startswith("--> Starting operation: "):
                starts[line.split(": ", 1)[1].strip()] = time.monotonic()
            elif line.startswith("--> Results"):
                starts["end"] = time.monotonic()
    if process.returncode:
        raise RuntimeError(f"the first deploy to {machine.address} failed:\n{''.join(said)[-4000:]}")
    names, moments = list(starts), list(starts.values())
    pairs = zip(names, moments, moments[1:], strict=False)
    return {"whole": round(time.monotonic() - begun, 1)} | {name: round(end - at, 2) for name, at, end in pairs}


def _no_change() -> float:
    """Run pyinfra over what is as wanted; return the seconds. Raises RuntimeError when it changed something."""
    begun = time.monotonic()
    done = subprocess.run(
        _PYINFRA, cwd=ROOT, env=os.environ | {"MESSWARTE_LAB": _LAB}, capture_output=True, text=True, check=True
    )
    seconds = time.monotonic() - begun
    total = next(line for line in (done.stdout + done.stderr).splitlines() if "Grand total" in line).split()
    if total[3:5] != ["-", "-"]:
        raise RuntimeError(f"a run without changes changed something:\n{done.stdout}{done.stderr}")
    return seconds


def _restored(peer: Peer, playbook: str, machine: Machine) -> dict[str, int]:
    """See that a playbook manages the outcome; return its number of changes for each thing that was done by hand."""
    # It may set what we do not look at: when a file was written, for example.
    peer.run(playbook)
    _unchanged(peer, playbook)
    found = {}
    for what, (damage, healed) in _DAMAGE.items():
        machine.succeed(damage)
        machine.fail(healed)
        found[what] = peer.run(playbook).changed
        machine.succeed(healed)
    _unchanged(peer, playbook)
    _no_change()
    return found


def _unchanged(peer: Peer, playbook: str) -> float:
    begun = time.monotonic()
    recap = peer.run(playbook)
    if recap.changed:
        changes = "\n".join(recap.changes)
        raise RuntimeError(f"Ansible ({playbook}) changes {recap.changed} tasks of what is as wanted:\n{changes}")
    return time.monotonic() - begun


def _in_turns(peer: Peer, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of runs without changes; one after the other, so that the machine's load hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in ("pyinfra", *PLAYBOOKS)}
    for _ in range(rounds):
        times["pyinfra"].append(_no_change())
        for playbook in PLAYBOOKS:
            times[playbook].append(_unchanged(peer, playbook))
    return times


def _spread(times: Sequence[float]) -> dict[str, float]:
    return {name: round(find(times), 2) for name, find in (("median", statistics.median), ("min", min), ("max", max))}


if __name__ == "__main__":
    sys.exit(main())
