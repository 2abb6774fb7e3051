"""The benchmark of pgstat_exporter beside its peers runs, and all sides give the declared facts; no time is judged."""

import json
import os
import subprocess
import sys

import pytest

from bench.exporter_sides import SIDES, groups, tree
from lab.system import LabError, require
from lab.trees import kept
from tests.integration.erp_process import ROOT


def ready() -> None:
    """Make the tree with the peers, or skip."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a tree of another Debian and enter it")
    try:
        require(print)
        with kept(tree(), print):
            pass
    except LabError as error:
        pytest.skip(f"the peers cannot be had here: {str(error).splitlines()[0]}")


def test_every_side_has_the_declared_facts_and_is_measured() -> None:
    ready()
    command = [sys.executable, "-m", "bench.exporter", "--quick", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(run.stdout or "{}")
    assert found, run.stderr
    assert run.returncode == (0 if all(target["ok"] for target in found["targets"]) else 1)
    sizes = found["figures"]["tables"]
    per_table = next(len(group.facts) for group in groups() if group.name == "tables")
    assert set(sizes) == {"20", "40"}
    for sides in sizes.values():
        assert set(sides) == {side.name for side in SIDES}
        assert {name: one["lacks"] for name, one in sides.items()} == {side: {} for side in sides}
        assert all(
            one["connections"] >= 1 and one["MB"] > 5 and one["p99 ms"] >= one["p50 ms"] > 0 for one in sides.values()
        )
    # Twenty tables more are at least their declared facts more, on each side.
    more = {name: sizes["40"][name]["series"] - one["series"] for name, one in sizes["20"].items()}
    assert min(more.values()) >= 20 * per_table, more
    erp = found["figures"]["demo ERP"]
    assert erp["failed"] == []
    assert erp["series"] > 500
    assert erp["server seconds an hour"] > 0
