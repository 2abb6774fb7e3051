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

# A pool's connections, and how many it may have (0: any number).
Sizes = Callable[[Any], tuple[int, int]]


class Pool:
    """A pool's numbers, of which those that changed are added to what is shown; pools of one name add up."""

    def __init__(self, metrics: Metrics, name: str, pool: Any, sizes: Sizes) -> None:
        self.of = weakref.ref(pool)
        self.used = 0
        self.waiting = 0
        self._metrics = metrics
        self._cells: Cells = metrics.pool(name)
        self._sizes = sizes
        self._shown = (0, 0, 0, 0)

    def show(self) -> None:
        """Show what is used and waited for, and how many connections there are and may be: none once it is gone."""
        pool = self.of()
        now = (self.used, self.waiting, *((0, 0) if pool is None else self._sizes(pool)))
        for which, number in enumerate(now):
            if number != self._shown[which]:
                self._metrics.add(self._cells, number - self._shown[which], which)
        self._shown = now

    @property
    def over(self) -> bool:
        """Tell whether nothing can change any more."""
        return self.of() is None and not self.used and not self.waiting


class Connections:
    """The process's pools, and the connections that are out; for one thread at a time."""

    def __init__(self, metrics: Metrics) -> None:
        """Take the metrics to show them in."""
        self._metrics = metrics
        self._names: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """Begin anew, in a forked process too: the connections are its parent's."""
        self._out: dict[int, tuple[float, Pool | None]] = {}
        self._out_shown = 0
        self._seconds = 0.0
        # A pool that is gone has numbers until they are shown, though another may have its id by then.
        self._pools: list[Pool] = []
        self._by_id: dict[int, Pool] = {}

    def count(self, kind: int, pool: Any, connection: int, sizes: Sizes | None, moment: float) -> None:
        """Count what happened to a connection, told by its id, and a pool (None: one without a size)."""
        numbers = None
        if sizes is not None:
            numbers = self._by_id.get(id(pool))
            if numbers is None or numbers.of() is not pool:
                numbers = self._learn(pool, sizes)
            if kind == WAIT:
                numbers.waiting += 1
            elif kind in (WAITED, GOT):
                numbers.waiting -= 1
        if kind in (OUT, GOT):
            # Told twice, it counts once.
            if connection not in self._out:
                self._out[connection] = moment, numbers
                if numbers is not None:
                    numbers.used += 1
        elif kind == BACK:
            self._returned(connection, moment)

    @fails_open
    def refresh(self) -> None:
        """Show this process's pools and connections as they are."""
        with self._metrics.lock:
            self._metrics.add(self._metrics.connections, len(self._out) - self._out_shown)
            self._metrics.add(self._metrics.connection_seconds, self._seconds)
            self._out_shown, self._seconds = len(self._out), 0.0
            for pool in self._pools:
                pool.show()
            self._pools = [pool for pool in self._pools if not pool.over]
            self._by_id = {key: pool for key, pool in self._by_id.items() if not pool.over}

    def _learn(self, pool: Any, sizes: Sizes) -> Pool:
        name = getattr(pool, "name", None) or getattr(pool, "logging_name", None) or _UNNAMED
        if len(self._names) < _MOST_POOLS:
            self._names.add(name)
        numbers = Pool(self._metrics, name if name in self._names else _OTHER, pool, sizes)
        self._pools.append(numbers)
        self._by_id[id(pool)] = numbers
        return numbers

    def _returned(self, connection: int, moment: float) -> None:
        """Count a connection that a pool has back, or has given up, if it was out."""
        out = self._out.pop(connection, None)
        if out is not None:
            began, pool = out
            self._seconds += moment - began
            if pool is not None:
                pool.used -= 1
