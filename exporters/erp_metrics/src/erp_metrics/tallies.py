"""What was counted and is not in the numbers yet: kept in lists, and added up many at a time, which costs less."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from erp_metrics.groups import Cells


class Tally(Protocol):
    """Something that is counted in."""

    def forget(self) -> None:
        """Have nothing left to add."""


class Series:
    """What a query counts in: its name's numbers, and where the name came from."""

    __slots__ = ("counts", "duration", "name", "rows", "seconds", "source")

    def __init__(self, name: str, counts: Cells, duration: Cells, source: Cells) -> None:
        self.name = name
        self.counts = counts
        self.duration = duration
        self.source = source
        self.forget()

    def forget(self) -> None:
        """Have nothing left to add."""
        self.seconds: list[float] = []
        self.rows = 0

    def settle(self, bounds: Sequence[float], slow: int) -> None:
        """Add what came since the last time; from bucket `slow` on, a query was slow. The caller holds the lock."""
        seconds, rows = self.seconds, self.rows
        self.forget()
        buckets = _observe(self.duration, 0, bounds, seconds)
        _add(self.counts, 0, len(seconds))
        _add(self.counts, 1, rows)
        _add(self.counts, 2, sum(number for bucket, number in buckets.items() if bucket >= slow))
        _add(self.source, 0, len(seconds))


class Endpoint:
    """What the queries of an endpoint count in."""

    __slots__ = ("cells", "queries")

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.forget()

    def forget(self) -> None:
        """Have nothing left to add."""
        self.queries = 0

    def settle(self) -> None:
        """Add what came since the last time; the caller holds the lock."""
        queries = self.queries
        self.forget()
        _add(self.cells, 0, queries)


class Answers:
    """What requests of one endpoint, method and status count in."""

    __slots__ = ("durations", "queries", "requests", "seconds")

    def __init__(self, requests: Cells, durations: Cells) -> None:
        self.requests = requests
        self.durations = durations
        self.forget()

    def forget(self) -> None:
        """Have nothing left to add."""
        self.seconds: list[float] = []
        self.queries: list[int] = []

    def settle(self, bounds: Sequence[float], query_bounds: Sequence[float]) -> None:
        """Add what came since the last time; the caller holds the lock."""
        seconds, queries = self.seconds, self.queries
        self.forget()
        _add(self.requests, 0, len(seconds))
        _observe(self.durations, 0, bounds, seconds)
        # Behind the buckets of the duration, the one without bound included, and its sum.
        _observe(self.durations, len(bounds) + 2, query_bounds, queries)


def _add(cells: Cells, which: int, number: float) -> None:
    if number:
        cells.values[cells.at[which]] += number


def _observe(cells: Cells, first: int, bounds: Sequence[float], numbers: Sequence[float]) -> Counter[int]:
    """Add to a histogram's buckets, the first of which is told, and its sum behind them; return how many to each."""
    buckets = Counter(map(partial(bisect_left, bounds), numbers))
    for bucket, number in buckets.items():
        _add(cells, first + bucket, number)
    _add(cells, first + len(bounds) + 1, sum(numbers))
    return buckets
