"""What measuring an application costs: µs of CPU time that a library adds to a request and to a query.

A process does the same work without any library and with each, in many short turns and in changing order, so that
what else the machine does hits all of them. As that only ever makes a turn slower, a library's figure is the tenth
percentile of its turns; what it adds is its figure less that of the work without any. That is done twice: what the
second seems to add is the error. The process is started anew a few times, as its memory lies elsewhere each time, and
the median counts; so is another one, in prometheus-client's multi-process mode. Requests go to FastAPI applications of
twenty routes, without a server; queries look one row up in a real PostgreSQL. "clock" is a hook of queries that reads
the clock and does nothing else.

erp_metrics counts in batches: a turn is made of whole ones. What it puts off until its numbers are shown is measured by
itself, after some thousand operations, and is part of its figure. Its thread, which in several processes shows them
four times a second, runs in everybody's turns.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import erp_metrics
from bench.environment import ROOT, programs
from bench.instrumentation_sides import KINDS
from bench.report import Target, as_json, say
from bench.throwaway import postgres

_LOCK = ROOT / "bench/instrumentation.lock"
# Kind of work, in one process or in several, and the most µs that erp_metrics may add.
_BOUNDS = (("request", False, 10), ("query", False, 3), ("request", True, 20), ("query", True, 8))


@dataclass(frozen=True)
class Figures:
    """µs of CPU time of one operation (tenth percentile and median of the turns), and what the library adds."""

    operation: float
    median: float
    added: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="bench instrumentation", description=__doc__)
    parser.add_argument("--dsn", help="a PostgreSQL to ask (default: one of its own, thrown away afterwards)")
    parser.add_argument("--starts", type=int, default=6, help="times that the work is started anew (6)")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each side after a start (40)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    found: dict[str, dict[str, Figures]] = {}
    with contextlib.nullcontext(options.dsn) if options.dsn else postgres() as dsn:
        python = programs(_LOCK) / "python"
        for kind in KINDS:
            found[kind] = {}
            for several, mode in _MODE.items():
                say(f"{kind} {mode}: {options.starts} times {options.rounds} rounds")
                runs = [_figures(_run(python, kind, dsn, options.rounds, several)) for _ in range(options.starts)]
                for name in runs[0]:
                    found[kind][f"{name} {mode}"] = _middle([run[name] for run in runs])
    targets = [
        Target(f"µs added to a {kind} {_MODE[several]}", found[kind][f"erp_metrics {_MODE[several]}"].added, bound)
        for kind, several, bound in _BOUNDS
    ]
    if options.json:
        figures = {kind: {name: vars(one) for name, one in sides.items()} for kind, sides in found.items()}
        print(as_json(_versions(), figures, targets))  # noqa: T201
    else:
        _print(found, targets)
    return 0 if all(target.ok for target in targets) else 1


_MODE = {False: "in one process", True: "in several processes"}


def _run(python: Path, kind: str, dsn: str, rounds: int, several: bool) -> dict[str, list[float]]:
    """Do the work once; return each side's turns in µs. Raises CalledProcessError when one has not measured it."""
    package = Path(erp_metrics.__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": str(package), "PYTHONHASHSEED": "0"}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    command = [str(python), str(ROOT / "bench/instrumentation_sides.py"), kind, dsn, str(rounds)]
    with tempfile.TemporaryDirectory(prefix="messwarte-bench-") as shared:
        if several:
            environment["PROMETHEUS_MULTIPROC_DIR"] = shared
        done = subprocess.run(command, env=environment, cwd="/", check=True, stdout=subprocess.PIPE)
    times: dict[str, list[float]] = json.loads(done.stdout)
    return times


def _figures(times: dict[str, list[float]]) -> dict[str, Figures]:
    best = {name: statistics.quantiles(turns, n=10, method="inclusive")[0] for name, turns in times.items()}
    return {
        name: Figures(best[name], statistics.median(turns), best[name] - best["plain"]) for name, turns in times.items()
    }


def _middle(runs: Sequence[Figures]) -> Figures:
    return Figures(*(round(statistics.median(column), 1) for column in zip(*map(astuple, runs), strict=True)))


def _versions() -> dict[str, str]:
    locked = dict(re.findall(r"^([a-z][\w-]*)==([\w.]+)", _LOCK.read_text(), re.MULTILINE))
    names = [name for name in locked if re.search("exporter|instrumentat|psycopg|fastapi|starlette|prometheus", name)]
    return {name: locked[name] for name in names}


def _print(found: dict[str, dict[str, Figures]], targets: list[Target]) -> None:
    print(f"{'µs of CPU time':58} {'operation':>9} {'median':>9} {'added':>7}")  # noqa: T201
    for kind, sides in found.items():
        for name, one in sides.items():
            print(f"{kind + ', ' + name:58} {one.operation:9.1f} {one.median:9.1f} {one.added:7.1f}")  # noqa: T201
    print(*targets, sep="\n")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
