"""What the stack takes of its hosts under the demo load: memory and CPU time by unit.

A lab of three hosts: `database`, `monitoring`, and `app` for all the rest. Memory is the proportional set size of all
processes (their own pages, and their part of shared ones, mapped files included), the largest sum of a few looks; files
that are merely cached and the kernel's own memory are not counted. CPU time is that of processes and of the children
that they waited for, over the whole window. A unit is ours when it did not run before the deploy.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import Target, as_json
from lab import Lab, Machine

ROOT = Path(__file__).resolve().parent.parent
_LAB, _HOSTS = "bench-footprint", ("app", "database", "monitoring")
_LOOKS = 5
_MONITORING_MB, _MONITORING_CPU, _DATABASE_MB = 1000.0, 10.0, 150.0
_DATABASE_UNITS = re.compile(r"postgresql@")
# The looks themselves come in over SSH.
_OURSELVES = re.compile(r"session-|user@|ssh\.service")
# Prints {unit: [PSS in kB, CPU in ticks]}.
_LOOK = r"""
import json, pathlib, re
found = {}
for folder in pathlib.Path("/proc").iterdir():
    if not folder.name.isdigit():
        continue
    try:
        groups = (folder / "cgroup").read_text().split()[-1].split("/")
        times = (folder / "stat").read_text().rpartition(")")[2].split()[11:15]
        pss = re.search(r"(?m)^Pss: +(\d+)", (folder / "smaps_rollup").read_text())
    except (OSError, IndexError):
        continue
    unit = next((one for one in reversed(groups) if one.endswith((".service", ".scope"))), "the kernel's")
    both = found.setdefault(unit, [0, 0])
    both[0] += int(pss[1]) if pss else 0
    both[1] += sum(map(int, times))
print(json.dumps(found))
"""
Look = dict[str, list[int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark as root; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="bench footprint", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="of demo load that are looked at, after one more (5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    with _lab() as machines:
        system = {name: set(_look(machine)) for name, machine in machines.items()}
        _up()
        time.sleep(60)
        figures = _watch(machines, system, options.minutes * 60)
    monitoring, database = figures["monitoring"], figures["database"]
    ours = sum(one["MB"] for unit, one in database["units"].items() if one["ours"] and not _DATABASE_UNITS.match(unit))
    targets = [
        Target("MB of the monitoring host", monitoring["MB"], _MONITORING_MB),
        Target("% of a core of the monitoring host", monitoring["% of a core"], _MONITORING_CPU),
        Target("MB of ours on the database host, PostgreSQL apart", round(ours, 1), _DATABASE_MB),
    ]
    if options.json:
        print(as_json({}, {"minutes": options.minutes, "hosts": figures}, targets))  # noqa: T201
    else:
        _print(figures)
        print(*targets, sep="\n")  # noqa: T201
    return 0 if all(target.ok for target in targets) else 1


@contextlib.contextmanager
def _lab() -> Iterator[dict[str, Machine]]:
    lab = Lab(_LAB, ROOT / ".lab")
    lab.down()
    try:
        yield lab.up(_HOSTS)
    finally:
        lab.down()


def _up() -> None:
    """Deploy to the hosts that run already, and wait until data arrive."""
    command = ["./messwarte", "up", "--lab", _LAB, *_HOSTS]
    print(f"$ {' '.join(command)}", file=sys.stderr)  # noqa: T201
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)


def _look(machine: Machine) -> Look:
    return dict(json.loads(machine.succeed(f"python3 -I - <<'END'\n{_LOOK}\nEND")))


def _watch(machines: Mapping[str, Machine], system: Mapping[str, set[str]], seconds: float) -> dict[str, Any]:
    """Return figures by host: the largest memory of the looks, and the CPU time between the first and the last."""
    begun = time.monotonic()
    looks: dict[str, list[Look]] = {name: [] for name in machines}
    for number in range(_LOOKS):
        time.sleep(max(0.0, begun + seconds * number / (_LOOKS - 1) - time.monotonic()))
        for name, machine in machines.items():
            looks[name].append(_look(machine))
    passed = time.monotonic() - begun
    return {name: _figures(found, system[name], passed) for name, found in looks.items()}


def _figures(looks: list[Look], system: set[str], seconds: float) -> dict[str, Any]:
    units = {unit for look in looks for unit in look if not _OURSELVES.match(unit)}
    ticks = os.sysconf("SC_CLK_TCK")

    def memory(look: Look) -> float:
        return sum(look[unit][0] for unit in units & look.keys()) * 1024 / 1e6

    by_unit = {
        unit: {
            "MB": round(max(look.get(unit, [0, 0])[0] for look in looks) * 1024 / 1e6, 1),
            "% of a core": round((_cpu(looks[-1], unit) - _cpu(looks[0], unit)) / ticks / seconds * 100, 2),
            "ours": unit not in system,
        }
        for unit in units
    }
    return {
        "MB": round(max(map(memory, looks)), 1),
        "% of a core": round(sum(one["% of a core"] for one in by_unit.values()), 2),
        "units": dict(sorted(by_unit.items(), key=lambda one: -float(one[1]["MB"]))),
    }


def _cpu(look: Look, unit: str) -> int:
    return look.get(unit, [0, 0])[1]


def _print(figures: dict[str, Any]) -> None:
    for host, found in figures.items():
        print(f"{host}: {found['MB']} MB, {found['% of a core']} % of a core")  # noqa: T201
        for unit, one in found["units"].items():
            print(f"  {unit:44} {one['MB']:7.1f} MB {one['% of a core']:6.2f} %{'' if one['ours'] else '  system'}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
