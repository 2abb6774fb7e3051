"""Processes of one application: forked ones, killed ones, and more names than a file first has room for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

import erp_metrics
from erp_metrics.journal import BATCH

SOURCE = Path(erp_metrics.__file__).resolve().parents[1]

# What each process does is said by its last lines; `run` measures one query.
_PREAMBLE = """
import os, signal, sys, time
import erp_metrics
from erp_metrics.measure import done

def run(statement="/* name: x */ SELECT 1", rows=1):
    done(statement, 0.001, rows)

"""


def _run(directory: Path, code: str) -> int:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", _PREAMBLE + code], env=environment, check=False, capture_output=True)
    assert done.stderr == b""
    return done.returncode


def _sums(directory: Path, name: str, label: str) -> dict[str, float]:
    """Return sums other than 0 as any application would show them: by prometheus-client's own collector."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    samples = (sample for metric in registry.collect() for sample in metric.samples if sample.name == name)
    return {sample.labels[label]: sample.value for sample in samples if sample.value}


def test_a_forked_process_counts_for_itself(tmp_path: Path) -> None:
    """What its parent had counted or only noted before is not counted again; both go on."""
    code = """
erp_metrics.instrument(None)
for _ in range(1000): run()
child = os.fork()
for _ in range(10): run()
if child == 0:
    time.sleep(1)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert _run(tmp_path, code) == 0
    assert _sums(tmp_path, "erp_db_query_count_total", "query_name") == {"x": 1020}
    assert _sums(tmp_path, "erp_db_query_rows_total", "query_name") == {"x": 1020}
    assert _sums(tmp_path, "erp_db_query_duration_seconds_count", "query_name") == {"x": 1020}


def test_a_killed_process_loses_no_more_than_a_moment(tmp_path: Path) -> None:
    """Whole batches are counted at once, the rest within a quarter of a second."""
    batches = 3 * BATCH
    number = batches + BATCH // 2
    code = f"""
erp_metrics.instrument(None)
for _ in range({number}): run()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert _run(tmp_path, code) == -signal.SIGKILL
    at_once = _sums(tmp_path, "erp_db_query_count_total", "query_name")["x"]
    assert batches <= at_once <= number
    assert _run(tmp_path, code.replace("os.kill", "time.sleep(1); os.kill")) == -signal.SIGKILL
    assert _sums(tmp_path, "erp_db_query_count_total", "query_name") == {"x": at_once + number}


def test_files_grow_with_their_names(tmp_path: Path) -> None:
    """Names met before and after a file was made larger keep their own numbers."""
    code = """
erp_metrics.instrument(None, max_query_names=500)
for number in range(400):
    run(f"/* name: n{number} */ SELECT 1", number)
for number in range(0, 400, 2):
    run(f"/* name: n{number} */ SELECT 1", number)
"""
    assert _run(tmp_path, code) == 0
    assert max(path.stat().st_size for path in tmp_path.glob("*.db")) > 1 << 20
    counts = _sums(tmp_path, "erp_db_query_count_total", "query_name")
    assert counts == {f"n{number}": 2 - number % 2 for number in range(400)}
    rows = _sums(tmp_path, "erp_db_query_rows_total", "query_name")
    assert rows == {f"n{number}": number * (2 - number % 2) for number in range(1, 400)}


def test_the_applications_own_metrics_are_summed_beside_ours(tmp_path: Path) -> None:
    code = """
from prometheus_client import Counter, Gauge
own, live = Counter("own", "Mine.", ["kind"]), Gauge("own_live", "Mine.", ["kind"], multiprocess_mode="livesum")
erp_metrics.instrument(None)
run()
own.labels("a").inc(3)
live.labels("a").set(2)
"""
    for _ in range(2):
        assert _run(tmp_path, code) == 0
    assert _sums(tmp_path, "own_total", "kind") == {"a": 6}
    # That of the first process went with it when the second began.
    assert _sums(tmp_path, "own_live", "kind") == {"a": 2}
    assert _sums(tmp_path, "erp_db_query_count_total", "query_name") == {"x": 2}
