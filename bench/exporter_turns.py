"""The turns of `bench exporter`: one side runs, is scraped beside its background work and at rest, and stands still."""

import contextlib
import math
import re
import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.exporter_process import MARK, Answer, Exporter, ServerWatch, started
from bench.exporter_sides import OURS, SIDES, Place, Side
from bench.report import say
from lab.postgresql import PostgresServer, free_port
from lab.system import wait_until

DATABASE = "bench"
# Scrapes, and readings of what is slow, in real use.
SCRAPE_SECONDS, SLOW_SECONDS = 30, 240
# Peers need not be waited for: so long may their scrapes at rest take in a turn.
_PATIENCE = 4.0
_REFRESHED_WITHIN = 180
_MANY = 1000


@dataclass
class Record:
    """What was measured of a side; seconds."""

    at_rest: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    refreshes: list[float] = field(default_factory=list)
    # The server's CPU time and how often the side read what is fast meanwhile.
    cpu_at_rest: float = 0.0
    cpu_beside: float = 0.0
    fast_at_rest: float = 0.0
    fast_beside: float = 0.0
    last: Answer | None = None
    lacks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ground:
    """The server, what is known of it from outside, and the tree of the peers."""

    server: PostgresServer
    watch: ServerWatch
    tree: Path


def measure(ground: Ground, names: Sequence[str], scrapes: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the figures of every side with these tables, of which there are so many in the database."""
    # Shorter than the others' turns take, so that each finds its background work overdue.
    interval = max(3, round(math.sqrt(len(names)) / 4))
    rounds = min(rounds, 3) if len(names) > _MANY else rounds
    expected: dict[str, Collection[str]] = {
        "table": names,
        "index": [f"{name}_pkey" for name in names],
        "database": [DATABASE],
    }
    records = {side.name: Record() for side in SIDES}
    ground.watch.peaks.clear()
    with contextlib.ExitStack() as stack:
        exporters: list[Exporter] = []
        for side in SIDES:
            place = Place(ground.server, DATABASE, side.role, free_port(), interval, ground.tree)
            exporter = stack.enter_context(started(side, side.command(place), place.port, ground.server.directory))
            with exporter.turn():
                records[side.name].lacks = _complete(exporter, expected)
            exporters.append(exporter)
        with ground.watch.sampling():
            for number in range(rounds):
                say(f"  round {number + 1} of {rounds}")
                for exporter in exporters:
                    _turn(ground, exporter, records[exporter.side.name], math.ceil(scrapes / rounds))
        peaks = {one.side.name: one.peak_bytes() / 1e6 for one in exporters}
    return {
        side.name: _figures(side, records[side.name], peaks[side.name], ground.watch.peaks.get(side.role, 0))
        for side in SIDES
    }


def _complete(exporter: Exporter, expected: dict[str, Collection[str]]) -> dict[str, int]:
    """Wait until an exporter has every declared fact of every table; return what it lacks even then."""
    deadline = time.monotonic() + _REFRESHED_WITHIN
    while exporter.scrape().mark(exporter.side) < 0 and time.monotonic() < deadline:
        time.sleep(0.5)
    for _ in range(3):
        if not (lacks := exporter.scrape().lacks(exporter.side, expected)):
            return {}
        time.sleep(2)
    return lacks


def _turn(ground: Ground, exporter: Exporter, record: Record, scrapes: int) -> None:
    watch, side, rows = ground.watch, exporter.side, _change(ground)
    ours = side is OURS
    cpu = watch.cpu_seconds()
    with exporter.turn():
        begun = time.monotonic()
        shown = not side.cached or _shown(exporter, record, rows)
        passed = time.monotonic() - begun
        if side.cached:
            record.refreshes.append(_since_read(side, record.last, passed))
            record.fast_beside += passed / side.fast if side.fast else 0
        refreshed, begun = watch.cpu_seconds(), time.monotonic()
        for number in range(scrapes):
            if number and not ours and time.monotonic() - begun > _PATIENCE:
                break
            record.last = exporter.scrape()
            record.at_rest.append(record.last.seconds)
            record.fast_at_rest += not side.fast
        if side.fast:
            time.sleep(max(0.0, begun + 2 * side.fast - time.monotonic()))
            record.fast_at_rest += (time.monotonic() - begun) / side.fast
    record.cpu_beside += refreshed - cpu
    record.cpu_at_rest += watch.cpu_seconds() - refreshed
    if not side.cached:
        record.refreshes.append(record.at_rest[-1])
    if record.last and record.last.mark(side) < rows and shown:
        raise RuntimeError(f"{side.name} has not shown a change")


def _shown(exporter: Exporter, record: Record, rows: float) -> bool:
    """Scrape until a change shows; a peer that cannot keep up goes on with that figure, which is too good for it."""
    side, begun = exporter.side, time.monotonic()
    while True:
        record.last = exporter.scrape()
        record.beside.append(record.last.seconds)
        record.fast_beside += not side.fast
        if record.last.mark(side) >= rows:
            return True
        if time.monotonic() - begun > _REFRESHED_WITHIN:
            late = f"{side.name} has not shown a change within {_REFRESHED_WITHIN} s"
            if side is OURS:
                raise RuntimeError(late)
            say(f"  {late}")
            return False


def _change(ground: Ground) -> float:
    """Insert a row into the watched table; return how many there have been, once the server counts them."""
    ground.server.execute(f"INSERT INTO {MARK} SELECT count(*), 'x', 1 FROM {MARK}", DATABASE)  # noqa: S608 - a constant
    ((rows,),) = ground.server.execute(f"SELECT count(*) FROM {MARK}", DATABASE)  # noqa: S608 - a constant
    # What a session did is counted when it has ended; then its CPU time is the server's, too.
    wait_until(lambda: "postgres" not in ground.watch.connections(), "the session has ended", 10, 0.01)
    return float(rows)


def _since_read(side: Side, answer: Answer | None, passed: float) -> float:
    """Return how long ago the data that show the change were read; at most, where a side does not tell."""
    if not side.read_at or answer is None:
        return passed
    found = re.search(rf"(?m)^{re.escape(side.read_at)} (\S+)$", answer.text)
    return time.time() - float(found[1]) if found else passed


def _figures(side: Side, record: Record, megabytes: float, connections: int) -> dict[str, Any]:
    every = [*record.at_rest, *record.beside]
    fast = record.cpu_at_rest / record.fast_at_rest
    slow = max(0.0, record.cpu_beside - record.fast_beside * fast) / len(record.refreshes) if side.cached else 0.0
    refresh = max(record.refreshes)
    answer = record.last
    return {
        "p50 ms": round(statistics.median(record.at_rest) * 1000, 1),
        "p99 ms": round(sorted(every)[math.ceil(len(every) * 0.99) - 1] * 1000, 1),
        "p99 at rest ms": round(sorted(record.at_rest)[math.ceil(len(record.at_rest) * 0.99) - 1] * 1000, 1),
        "scrapes": len(record.at_rest),
        "scrapes beside the background": len(record.beside),
        "server s/h": round(fast * 3600 / SCRAPE_SECONDS + slow * 3600 / SLOW_SECONDS, 1),
        "server ms of a scrape": round(fast * 1000, 1),
        "server ms of a refresh": round(slow * 1000, 1),
        "refresh s": round(refresh, 1),
        "freshness s": round(refresh + (SLOW_SECONDS if side.cached else 0), 1),
        "connections": connections,
        "MB": round(megabytes, 1),
        "series": answer.series() if answer else 0,
        "sent KB": answer.size // 1000 if answer else 0,
        "lacks": record.lacks,
    }
