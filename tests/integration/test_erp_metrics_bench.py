"""The benchmark of erp_metrics runs, and says what a machine can read; its figures are not for a busy test machine."""

import json
import subprocess
import sys

from tests.integration.erp_process import ROOT


def test_both_sides_are_measured(database: str) -> None:
    command = [sys.executable, "-m", "bench.erp_metrics", "--dsn", database, "--rounds=3", "--operations=20", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(run.stdout)
    assert run.returncode == (0 if all(target["ok"] for target in found["targets"]) else 1)
    assert set(found["figures"]) == {"query", "asyncio query", "request with one query"}
    for figures in found["figures"].values():
        assert 0 < figures["plain"] < 1e6
        assert 0 < figures["measured"] < 1e6
        assert figures["ratio"] > 0.5
    assert {tuple(target) for target in found["targets"]} == {("name", "value", "bound", "ok")}
    assert run.stderr == ""
