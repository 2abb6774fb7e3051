"""Metrics that are counted together: their label sets, and how they are shown."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import mmap_key
from prometheus_client.utils import floatToGoString

from erp_metrics.store import Store, Values


class Family(NamedTuple):
    """One metric, `_total` left out; a histogram has the upper bounds of its buckets, the last one being infinite."""

    name: str
    text: str
    bounds: tuple[float, ...] = ()


class Cells:
    """The numbers of one label set: `values[at[i]]` is the i-th. A histogram has its buckets and then its sum."""

    __slots__ = ("at", "values")

    def __init__(self, values: Values, at: tuple[int, ...]) -> None:
        self.values = values
        self.at = at


class Group:
    """Metrics of one kind (counter, gauge, histogram) with the same labels."""

    def __init__(self, kind: str, labels: tuple[str, ...], *families: Family) -> None:
        """Take what they are."""
        self._kind = kind
        self._labels = labels
        self.families = families
        self._cells: dict[tuple[str, ...], Cells] = {}

    def cells(self, store: Store, *labels: str) -> Cells:
        """Return the numbers of a label set, which exist from then on; the caller holds the lock."""
        cells = self._cells.get(labels)
        if cells is None:
            cells = self._cells[labels] = Cells(*store.place(self._kind, self._keys(labels)))
        return cells

    def move(self, store: Store) -> None:
        """Begin at 0 in another place, for all that hold the numbers of a label set."""
        for labels, cells in self._cells.items():
            cells.values, cells.at = store.place(self._kind, self._keys(labels))

    def describe(self) -> list[Metric]:
        """Return the metrics without samples."""
        return [Metric(family.name, family.text, self._kind) for family in self.families]

    def collect(self, lock: threading.RLock) -> list[Metric]:
        """Return the metrics with their samples."""
        metrics = self.describe()
        for labels, cells in list(self._cells.items()):
            with lock:
                numbers = iter([cells.values[position] for position in cells.at])
            named = dict(zip(self._labels, labels, strict=True))
            for metric, family in zip(metrics, self.families, strict=True):
                _SAMPLES[self._kind](metric, family, named, numbers)
        return metrics

    def _keys(self, labels: Sequence[str]) -> list[str]:
        """Return prometheus-client's keys, in the order of the numbers."""
        found = []
        for family in self.families:
            for suffix, bound in _PARTS[self._kind](family):
                names, values = list(self._labels), list(labels)
                if bound:
                    names.append("le")
                    values.append(bound)
                found.append(mmap_key(family.name, family.name + suffix, names, values, family.text))
        return found


def _counter_parts(_family: Family) -> Iterator[tuple[str, str]]:
    yield "_total", ""


def _gauge_parts(_family: Family) -> Iterator[tuple[str, str]]:
    yield "", ""


def _histogram_parts(family: Family) -> Iterator[tuple[str, str]]:
    for bound in family.bounds:
        yield "_bucket", _bound(bound)
    yield "_sum", ""


def _counter(metric: Metric, family: Family, labels: dict[str, str], numbers: Iterator[float]) -> None:
    metric.add_sample(f"{family.name}_total", labels, next(numbers))


def _gauge(metric: Metric, family: Family, labels: dict[str, str], numbers: Iterator[float]) -> None:
    metric.add_sample(family.name, labels, next(numbers))


def _histogram(metric: Metric, family: Family, labels: dict[str, str], numbers: Iterator[float]) -> None:
    count = 0.0
    for bound in family.bounds:
        count += next(numbers)
        metric.add_sample(f"{family.name}_bucket", {**labels, "le": _bound(bound)}, count)
    metric.add_sample(f"{family.name}_count", labels, count)
    metric.add_sample(f"{family.name}_sum", labels, next(numbers))


def _bound(number: float) -> str:
    return str(floatToGoString(number))  # type: ignore[no-untyped-call]


_PARTS: dict[str, Callable[[Family], Iterator[tuple[str, str]]]] = {
    "counter": _counter_parts,
    "gauge": _gauge_parts,
    "histogram": _histogram_parts,
}
_SAMPLES: dict[str, Callable[[Metric, Family, dict[str, str], Iterator[float]], None]] = {
    "counter": _counter,
    "gauge": _gauge,
    "histogram": _histogram,
}
