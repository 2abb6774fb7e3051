"""Where another process shows the numbers, each settles its own four times a second: at next to no cost when idle."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erp_metrics import connections, journal, measure, tallies
from erp_metrics.groups import Cells
from tests.unit.erp_metrics_rig import Rig, rigged


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Rig]:
    """One of several processes, with forty routes; its thread does not run."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(journal, "count_regularly", lambda: None)
    with rigged() as found:
        for number in range(40):
            found.recorder.metrics.start_endpoint(f"/{number}", ["GET"])
            found.recorder.metrics.count_request(f"/{number}", "GET", 200, 0.001, 1)
        measure.done("SELECT 1", 0.001, 1)
        journal.count_all()
        yield found


def shown(cells: Cells) -> float:
    """Return what others see, without bringing it up to date as our own registry would."""
    return cells.values[cells.at[0]]


def calls_of_a_wake_up() -> int:
    """Return how many functions of Python it calls."""
    calls = 0

    def seen(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(seen)
    try:
        journal.count_all()
    finally:
        sys.setprofile(None)
    return calls


def test_an_idle_process_does_next_to_nothing(rig: Rig) -> None:
    measure.done("SELECT 1", 0.001, 1)
    assert calls_of_a_wake_up() < 40
    assert calls_of_a_wake_up() < 10
    assert rig.endpoints() == {"none": 2}


def test_connections_are_shown_though_nothing_has_ended(rig: Rig) -> None:
    """Out, and back again."""
    connection, pool = object(), Rig
    connections.took(connection, pool)
    for number in (1, 0):
        journal.count_all()
        assert shown(rig.recorder.metrics.connections) == number
        connections.gave_back(connection)
    assert (rig.value("erp_db_connection_seconds_total") or 0) > 0


def test_what_could_not_be_settled_once_is_settled_later(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing is counted in between."""
    settle = tallies.Series.settle
    monkeypatch.setattr(tallies.Series, "settle", lambda *_: 1 / 0)
    measure.done("SELECT 1", 0.001, 1)
    journal.count_all()
    assert shown(rig.recorder.metrics.no_endpoint.cells) == 1
    monkeypatch.setattr(tallies.Series, "settle", settle)
    journal.count_all()
    assert shown(rig.recorder.metrics.no_endpoint.cells) == 2
