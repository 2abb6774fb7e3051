"""A newcomer's first minutes: `up` in a fresh clone, and what a second run costs.

Nothing is cached but a package file of Grafana, where there is one; Debian packages that the lab needs stay installed.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.report import Target, as_json

ROOT = Path(__file__).resolve().parent.parent
_LAB = "bench-first-light"
_UP_SECONDS = 300
_AGAIN_SECONDS = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark as root; return 1 when a target is missed. What is committed is measured."""
    parser = argparse.ArgumentParser(prog="bench first_light", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="second runs, of which the median counts (5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    with _clone() as checkout:
        first = _seconds(checkout, "./messwarte", "up")
        status = json.loads(_run(checkout, "./messwarte", "status", "--json", check=False))
        again = [_again(checkout) for _ in range(options.rounds)]
    figures: dict[str, Any] = {
        "up": round(first, 1),
        "components": len(status),
        "broken": [line["component"] for line in status if not line["healthy"]] if status else ["everything"],
        "grafana": any(line["component"] == "grafana" for line in status),
        "second runs": [round(seconds, 2) for seconds, _ in again],
    }
    targets = [
        Target("seconds of the first `up`", figures["up"], _UP_SECONDS),
        Target("broken components", len(figures["broken"]), 0),
        Target("operations that a second run changes or fails", max(changes for _, changes in again), 0),
        Target("seconds of a second run, median", round(statistics.median(one for one, _ in again), 2), _AGAIN_SECONDS),
    ]
    if options.json:
        print(as_json({"pyinfra": importlib.metadata.version("pyinfra")}, figures, targets))  # noqa: T201
    else:
        print(*targets, sep="\n")  # noqa: T201
    return 0 if all(target.ok for target in targets) else 1


@contextlib.contextmanager
def _clone() -> Iterator[Path]:
    """A clone without its environment, on a machine without base tree; in the end its lab is gone."""
    with tempfile.TemporaryDirectory(prefix="messwarte-bench-") as folder:
        checkout = Path(folder, "messwarte")
        _run(ROOT, "git", "clone", "--quiet", str(ROOT), str(checkout))
        _run(ROOT, "./messwarte", "down", "--purge")
        try:
            yield checkout
        finally:
            _run(checkout, "./messwarte", "down")


def _again(checkout: Path) -> tuple[float, int]:
    """Return the seconds of a run over what is deployed already, and how many operations changed or failed."""
    begun = time.monotonic()
    answer = _run(checkout, ".venv/bin/pyinfra", "-y", "--json", "inventories/lab.py", "deploy/stack.py")
    seconds = time.monotonic() - begun
    totals: dict[str, Any] = json.loads(answer)["results"]["totals"]
    return seconds, totals["success"] + totals["error"]


def _seconds(checkout: Path, *command: str) -> float:
    begun = time.monotonic()
    _run(checkout, *command)
    return time.monotonic() - begun


def _run(checkout: Path, *command: str, check: bool = True) -> str:
    """Run a command in a checkout, on the benchmark's own lab and without pip's cache; return what it printed."""
    environment = os.environ | {"MESSWARTE_LAB": _LAB, "PIP_NO_CACHE_DIR": "1"}
    print(f"$ {' '.join(command)}", file=sys.stderr)  # noqa: T201
    return subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=check).stdout


if __name__ == "__main__":
    sys.exit(main())
