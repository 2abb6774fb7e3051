"""Which connections are checked out, of which pool, and how many wait for one."""

import weakref
from collections.abc import Callable
from typing import Any

from erp_metrics.faults import fails_open
from erp_metrics.groups import Cells
from erp_metrics.journal import BACK, GOT, OUT, WAIT, WAITED
from erp_metrics.metrics import Metrics

# Pools have few names; an application that makes ever new ones gets them under one.
_MOST_POOLS = 20
_OTHER = "other"
_UNNAMED = "sqlalchemy"
_USED, _WAITING, _SIZE, _MAX = range(4)

# A pool's connections, and how many it may have (0: any number).
Sizes = Callable[[Any], tuple[int, int]]


class Pool:
    """A pool's numbers; pools of one name add up."""

    def __init__(self, metrics: Metrics, name: str, sizes: Sizes) -> None:
        self._metrics = metrics
        self._cells: Cells = metrics.pool(name)
        self._sizes = sizes
        self._shown = [0, 0]

    def used(self, number: int) -> None:
        """Add to the connections that are checked out."""
        self._metrics.add(self._cells, number, _USED)

    def waiting(self, number: int) -> None:
        """Add to the requests that wait for a connection."""
        self._metrics.add(self._cells, number, _WAITING)

    def refresh(self, pool: Any) -> None:
        """Show how many connections there are and may be; of a pool that is gone (None), none."""
        for index, number in enumerate((0, 0) if pool is None else self._sizes(pool)):
            if number != self._shown[index]:
                self._metrics.add(self._cells, number - self._shown[index], (_SIZE, _MAX)[index])
                self._shown[index] = number

    def forget(self) -> None:
        """Have shown nothing: the numbers are at 0 again."""
        self._shown = [0, 0]


class Connections:
    """The process's pools, and the connections that are out; for one thread at a time."""

    def __init__(self, metrics: Metrics) -> None:
        """Take the metrics to show them in."""
        self._metrics = metrics
        self._out: dict[int, tuple[float, Pool | None]] = {}
        self._pools: weakref.WeakKeyDictionary[Any, Pool] = weakref.WeakKeyDictionary()
        self._names: set[str] = set()

    def count(self, kind: int, pool: Any, connection: int, sizes: Sizes | None, moment: float) -> None:
        """Count what happened to a connection, told by its id, and a pool (None: one without a size)."""
        numbers = None if sizes is None else self._pools.get(pool) or self._learn(pool, sizes)
        if numbers is not None and kind == WAIT:
            numbers.waiting(1)
        elif numbers is not None and kind in (WAITED, GOT):
            numbers.waiting(-1)
        if kind in (OUT, GOT):
            self._checked_out(connection, numbers, moment)
        elif kind == BACK:
            self._returned(connection, moment)

    @fails_open
    def refresh(self) -> None:
        """Bring the sizes of this process's pools up to date."""
        for pool, numbers in list(self._pools.items()):
            numbers.refresh(pool)

    def restart(self) -> None:
        """Begin anew in a forked process: the connections are its parent's."""
        self._out.clear()
        for numbers in self._pools.values():
            numbers.forget()
        self._pools.clear()

    def _learn(self, pool: Any, sizes: Sizes) -> Pool:
        name = getattr(pool, "name", None) or getattr(pool, "logging_name", None) or _UNNAMED
        if len(self._names) < _MOST_POOLS:
            self._names.add(name)
        numbers = self._pools[pool] = Pool(self._metrics, name if name in self._names else _OTHER, sizes)
        weakref.finalize(pool, numbers.refresh, None).atexit = False
        numbers.refresh(pool)
        return numbers

    def _checked_out(self, connection: int, pool: Pool | None, moment: float) -> None:
        """Count a connection that a pool has given away; told twice, it counts once."""
        if connection not in self._out:
            self._out[connection] = moment, pool
            self._metrics.add(self._metrics.connections, 1)
            if pool is not None:
                pool.used(1)

    def _returned(self, connection: int, moment: float) -> None:
        """Count a connection that a pool has back, or has given up, if it was out."""
        out = self._out.pop(connection, None)
        if out is not None:
            began, pool = out
            self._metrics.add(self._metrics.connections, -1)
            self._metrics.add(self._metrics.connection_seconds, moment - began)
            if pool is not None:
                pool.used(-1)
