"""The benchmark of what measuring costs runs, and says what a machine can read; its figures are for quiet machines."""

import json
import subprocess
import sys

from tests.integration.erp_process import ROOT

_SIDES = ("plain", "plain again", "erp_metrics", "by hand", "starlette_exporter", "instrumentator")
_MODES = ("in one process", "in several processes")


def test_every_side_is_measured(database: str) -> None:
    """Each library in one process and, where it knows them, in several; all but OpenTelemetry counted what they did."""
    command = [sys.executable, "-m", "bench.instrumentation", "--dsn", database, "--starts=2", "--rounds=3"]
    run = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(run.stdout)
    assert run.returncode == (0 if all(target["ok"] for target in found["targets"]) else 1)
    assert set(found["figures"]) == {"request", "query", "asyncio query", "request with one query"}
    both = {f"{side} {mode}" for side in _SIDES for mode in _MODES}
    assert set(found["figures"]["request"]) == both | {"opentelemetry in one process"}
    for sides in found["figures"].values():
        assert {sides[f"plain {mode}"]["added"] for mode in _MODES} == {0}
        for figures in sides.values():
            assert 0 < figures["operation"] <= figures["median"] < 1e6
    assert {tuple(target) for target in found["targets"]} == {("name", "value", "bound", "ok")}
    assert len(found["targets"]) == 4
    said = {line.partition(":")[0] for line in run.stderr.splitlines()}
    assert said == {f"{kind} {mode}" for kind in found["figures"] for mode in _MODES}
