"""What measuring an application costs: µs of CPU time that a library adds to a request and to a query.

Each library has a process of its own, and so has the application without any; they work in many short turns, so that
what else the machine does hits all of them. As that only ever makes a turn slower, a process' figure is the tenth
percentile of its turns; what a library adds is its figure less that of the application without any. Where a process'
memory happens to lie is worth several microseconds: all are started anew a few times, and the median counts. Requests
go to a FastAPI application of twenty routes, without a server; queries look one row up in a real PostgreSQL.

erp_metrics counts in batches, and a turn is as long as one, so that it has one to pay for; what it puts off until its
numbers are shown is measured by itself, and is part of its figure.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import erp_metrics
from bench.environment import ROOT, programs
from bench.instrumentation_sides import MULTIPROCESS, QUERY_SIDES, REQUEST_SIDES
from bench.report import Target, as_json, say
from bench.throwaway import postgres
from erp_metrics.journal import BATCH

_LOCK = ROOT / "bench/instrumentation.lock"
_KINDS = {
    "request": tuple(REQUEST_SIDES),
    "query": tuple(QUERY_SIDES),
    "asyncio query": tuple(QUERY_SIDES),
    "request with one query": ("plain", "erp_metrics"),
}
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
    parser.add_argument("--starts", type=int, default=8, help="times that each side is started (8)")
    parser.add_argument("--rounds", type=int, default=120, help="turns of each side after a start (120)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    found: dict[str, dict[str, Figures]] = {}
    with contextlib.nullcontext(options.dsn) if options.dsn else postgres() as dsn:
        python = programs(_LOCK) / "python"
        for kind in _KINDS:
            say(f"{kind}: {options.starts} times {options.rounds} rounds")
            runs = []
            for _ in range(options.starts):
                with _sides(python, kind, dsn) as sides:
                    runs.append(_compare(sides, options.rounds))
            found[kind] = {name: _middle([run[name] for run in runs]) for name in runs[0]}
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


class _Side:
    """A process that works in turns."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=environment, cwd="/", text=True, **pipes)  # type: ignore[call-overload]
        self.times: list[float] = []
        self._answer()

    def work(self, operations: int) -> float:
        """Do some operations; return the µs of one."""
        return float(self._ask(str(operations)))

    def put_off(self) -> float:
        """Return the µs that one operation costs when the numbers are shown."""
        return float(self._ask("put off"))

    def check(self) -> bool:
        """Tell whether what was done is among its numbers."""
        return self._ask("check") == "True"

    def _ask(self, line: str) -> str:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        line = str(self.process.stdout.readline()).strip()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return line


@contextlib.contextmanager
def _sides(python: Path, kind: str, dsn: str) -> Iterator[dict[str, _Side]]:
    """Start every side of a kind of work, once for one process and once for several where it knows them."""
    package = Path(erp_metrics.__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": str(package), "PYTHONHASHSEED": "0"}
    sides: dict[str, _Side] = {}
    with tempfile.TemporaryDirectory(prefix="messwarte-bench-") as folder:
        try:
            for name in _KINDS[kind]:
                command = [str(python), str(ROOT / "bench/instrumentation_sides.py"), kind, name, dsn]
                label = name if name == "plain" else f"{name} {_MODE[False]}"
                sides[label] = _Side(command, environment)
                if name in MULTIPROCESS:
                    shared = Path(folder) / name
                    shared.mkdir()
                    several = environment | {"PROMETHEUS_MULTIPROC_DIR": str(shared)}
                    sides[f"{name} {_MODE[True]}"] = _Side(command, several)
            yield sides
        finally:
            for side in sides.values():
                side.process.stdin.close()
                side.process.wait()


def _compare(sides: dict[str, _Side], rounds: int) -> dict[str, Figures]:
    """Let the sides work in turns; raises RuntimeError when one has not measured what it did."""
    names = list(sides)
    for side in sides.values():
        side.work(10 * BATCH)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            sides[name].times.append(sides[name].work(BATCH))
    # In several processes this is done in between, by a thread.
    alone = sides[f"erp_metrics {_MODE[False]}"]
    later = alone.put_off()
    alone.times = [one + later for one in alone.times]
    for name, side in sides.items():
        if not name.startswith(("plain", "clock", "opentelemetry")) and not side.check():
            raise RuntimeError(f"{name} has not measured anything")
    return {name: _figures(side.times, sides["plain"].times) for name, side in sides.items()}


def _middle(runs: Sequence[Figures]) -> Figures:
    return Figures(*(round(statistics.median(column), 1) for column in zip(*map(astuple, runs), strict=True)))


def _figures(times: list[float], plain: list[float]) -> Figures:
    best, without = (statistics.quantiles(one, n=10, method="inclusive")[0] for one in (times, plain))
    return Figures(best, statistics.median(times), best - without)


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
