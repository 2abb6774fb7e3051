"""Which connections are checked out, of which pool, and how many wait for one.

The hooks write down what is, in a moment; it is added up when metrics are shown. That a connection came back is noted
in the journal, with the seconds that it was out.
"""

from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any
from weakref import ref

from erp_metrics.faults import fails_open, report
from erp_metrics.groups import Cells
from erp_metrics.journal import RETURNED, note_end
from erp_metrics.metrics import Metrics

# Pools have few names; an application that makes ever new ones gets them under one.
_MOST_POOLS = 20
_OTHER = "other"
_UNNAMED = "sqlalchemy"

# How many connections a pool has, and how many it may have (0: any number).
Sizes = Callable[[Any], tuple[int, int]]
# A pool, and something that is the asking one's alone.
Asked = tuple[ref[Any], object]

# The pools that were asked for a connection, and who has not got one yet.
_asked: dict[ref[Any], Sizes] = {}
waiting: set[Asked | None] = set()
# Connections that are checked out, by their id: since when, and of which pool.
_out: dict[int, tuple[float, ref[Any]]] = {}


def asks(pool: Any, sizes: Sizes) -> Asked | None:
    """Write down that somebody waits for a connection of a pool; whoever does it takes them out of `waiting` again."""
    try:
        known = ref(pool)
        _asked[known] = sizes
        one = known, object()
        waiting.add(one)
    except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
        report("connections.asks", fault)
        return None
    return one


def took(connection: Any, pool: Any) -> None:
    """Write down that a connection is out; told twice, it counts once."""
    try:
        _out.setdefault(id(connection), (perf_counter(), ref(pool)))
    except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
        report("connections.took", fault)


def gave_back(connection: Any) -> None:
    """Note that a pool has a connection back, or has given it up, if it was out; never raises.

    To be called before the pool has it: from then on another thread may take it.
    """
    out = _out.pop(id(connection), None)
    if out is not None:
        note_end((RETURNED, None, perf_counter() - out[0], 0))


class _Pool:
    """A pool's numbers, of which those that changed are added to what is shown; pools of one name add up."""

    def __init__(self, metrics: Metrics, name: str, sizes: Sizes) -> None:
        self._metrics = metrics
        self._cells: Cells = metrics.pool(name)
        self._sizes = sizes
        self._shown = (0, 0, 0, 0)

    def show(self, pool: Any, used: int, waited_for: int) -> None:
        """Show what is used and waited for, and how many connections there are and may be: none once it is gone."""
        now = (0, 0, 0, 0) if pool is None else (used, waited_for, *self._sizes(pool))
        for which, number in enumerate(now):
            if number != self._shown[which]:
                self._metrics.add(self._cells, number - self._shown[which], which)
        self._shown = now


class Connections:
    """What is shown of the process's pools, and of the connections that are out."""

    def __init__(self, metrics: Metrics) -> None:
        """Take the metrics to show them in."""
        self._metrics = metrics
        self._names: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """Begin anew, in a forked process too: the connections are its parent's."""
        _asked.clear()
        waiting.clear()
        _out.clear()
        self.seconds = 0.0
        """How long connections that came back were out, as far as it is not shown yet."""
        self._out_shown = 0
        self._pools: dict[ref[Any], _Pool] = {}

    @fails_open
    def refresh(self) -> None:
        """Show this process's pools and connections as they are."""
        if not (_asked or _out or self._out_shown or self.seconds):
            return
        with self._metrics.lock:
            out = Counter(pool for _, pool in _out.copy().values())
            self._metrics.add(self._metrics.connections, out.total() - self._out_shown)
            self._metrics.add(self._metrics.connection_seconds, self.seconds)
            self._out_shown, self.seconds = out.total(), 0.0
            waits = Counter(one[0] for one in waiting.copy() if one)
            for known, sizes in _asked.copy().items():
                pool = known()
                if known not in self._pools and pool is not None:
                    self._pools[known] = _Pool(self._metrics, self._name(pool), sizes)
                if known in self._pools:
                    self._pools[known].show(pool, out[known], waits[known])
                if pool is None:
                    self._pools.pop(known, None)
                    del _asked[known]

    def _name(self, pool: Any) -> str:
        name = getattr(pool, "name", None) or getattr(pool, "logging_name", None) or _UNNAMED
        if len(self._names) < _MOST_POOLS:
            self._names.add(name)
        return name if name in self._names else _OTHER
