"""Which connections are checked out, of which pool, and how many wait for one."""

import threading
import weakref
from collections.abc import Callable
from time import perf_counter
from typing import Any

from erp_metrics.faults import fails_open
from erp_metrics.groups import Cells
from erp_metrics.metrics import Metrics

# Pools have few names; an application that makes ever new ones gets them under one.
_MOST_POOLS = 20
_OTHER = "other"
_USED, _WAITING, _SIZE, _MAX = range(4)

# A pool's connections, and how many it may have (0: any number).
Sizes = Callable[[Any], tuple[int, int]]


class Pool:
    """A pool's numbers."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics = metrics
        self.cells: Cells = metrics.pool(name)
        self._shown = [0, 0]

    def used(self, number: int) -> None:
        """Add to the connections that are checked out."""
        self._metrics.add(self.cells, number, _USED)

    def waiting(self, number: int) -> None:
        """Add to the requests that wait for a connection."""
        self._metrics.add(self.cells, number, _WAITING)

    def show(self, size: int, most: int) -> None:
        """Show how many connections there are and may be."""
        for index, (which, number) in enumerate(((_SIZE, size), (_MAX, most))):
            if number != self._shown[index]:
                self._metrics.add(self.cells, number - self._shown[index], which)
                self._shown[index] = number

    def forget(self) -> None:
        """Have shown nothing: the numbers are at 0 again."""
        self._shown = [0, 0]


class Connections:
    """The process's pools, and the connections that are out."""

    def __init__(self, metrics: Metrics) -> None:
        """Take the metrics to show them in."""
        self._metrics = metrics
        self._lock = threading.RLock()
        self._out: dict[int, tuple[float, Pool | None]] = {}
        self._pools: weakref.WeakKeyDictionary[Any, tuple[Pool, Sizes]] = weakref.WeakKeyDictionary()
        self._names: set[str] = set()

    def pool(self, pool: Any, name: str, sizes: Sizes) -> Pool:
        """Return a pool's numbers, which exist from then on and end with it; pools of one name add up."""
        found = self._pools.get(pool)
        if found is None:
            with self._lock:
                if len(self._names) < _MOST_POOLS:
                    self._names.add(name)
                found = Pool(self._metrics, name if name in self._names else _OTHER), sizes
                self._pools[pool] = found
            weakref.finalize(pool, found[0].show, 0, 0).atexit = False
            found[0].show(*sizes(pool))
        return found[0]

    @fails_open
    def refresh(self) -> None:
        """Bring the sizes of this process's pools up to date."""
        for pool, (numbers, sizes) in list(self._pools.items()):
            numbers.show(*sizes(pool))

    def checked_out(self, connection: object, pool: Pool | None) -> None:
        """Note that a pool has given a connection away; told twice, it counts once."""
        with self._lock:
            if id(connection) in self._out:
                return
            self._out[id(connection)] = perf_counter(), pool
        self._metrics.add(self._metrics.connections, 1)
        if pool is not None:
            pool.used(1)

    def returned(self, connection: object) -> tuple[Pool | None] | None:
        """Note that a pool has a connection back, or has given it up; return whose it was, None if it was not out."""
        with self._lock:
            out = self._out.pop(id(connection), None)
        if out is None:
            return None
        began, pool = out
        self._metrics.add(self._metrics.connections, -1)
        self._metrics.add(self._metrics.connection_seconds, perf_counter() - began)
        if pool is not None:
            pool.used(-1)
        return (pool,)

    def restart(self) -> None:
        """Begin anew in a forked process: the connections are its parent's."""
        self._lock = threading.RLock()
        self._out.clear()
        for numbers, _ in self._pools.values():
            numbers.forget()
        self._pools.clear()
