"""The metrics themselves; every known label value starts at 0, so that its first event is an increase."""

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from erp_metrics import sqlstate
from erp_metrics.groups import Cells, Family, Group
from erp_metrics.names import SOURCES
from erp_metrics.store import Memory, Shared, Store
from erp_metrics.tallies import Answers, Endpoint, Series, Tally

NO_ENDPOINT = "none"
UNMATCHED = "unmatched"

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_QUERIES = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics(Collector):
    """The application's metrics in one registry. Raises ValueError when it has metrics of these names already."""

    def __init__(self, slow_seconds: float, registry: CollectorRegistry = REGISTRY) -> None:
        """Register them, all or none; `slow_seconds` becomes a bound, so that slower queries can be counted exactly."""
        self.lock = threading.RLock()
        self._registry = registry
        self._slow = float(slow_seconds)
        self._bounds = tuple(sorted({*_BOUNDS, self._slow}))
        self._groups: list[Group] = []
        self._make_groups()
        # Whoever has figures of their own brings them up to date before they are shown.
        self.refreshers: list[Callable[[], None]] = []
        self._queries: dict[tuple[str, str], Series] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._answers: dict[tuple[str, str, int], Answers] = {}
        registry.register(self)
        try:
            self._store = self._new_store()
            self.connections = self._cells(self._active)
            self.connection_seconds = self._cells(self._connection_seconds)
            self.no_endpoint = self.endpoint(NO_ENDPOINT)
            for source in SOURCES:
                self._cells(self._sources, source)
        except Exception:
            self.unregister()
            raise

    def _group(self, kind: str, labels: tuple[str, ...], *families: Family) -> Group:
        self._groups.append(Group(kind, labels, *families))
        return self._groups[-1]

    def _make_groups(self) -> None:
        seconds, queries = (*self._bounds, math.inf), (*_QUERIES, math.inf)
        self._counts = self._group(
            "counter",
            ("query_name",),
            Family("erp_db_query_count", "Database queries that ended, well or not."),
            Family("erp_db_query_rows", "Rows that queries returned or changed."),
            Family("erp_db_query_slow", "Database queries that took longer than the slow threshold."),
        )
        self._durations = self._group(
            "histogram",
            ("query_name",),
            Family("erp_db_query_duration_seconds", "Duration of database queries, failed ones included.", seconds),
        )
        self._errors = self._group(
            "counter",
            ("query_name", "sqlstate_class"),
            Family("erp_db_query_errors", "Database queries that failed."),
        )
        self._sources = self._group(
            "counter",
            ("source",),
            Family("erp_db_query_names", "Database queries by what gave them their query_name."),
        )
        self._active = self._group(
            "gauge", (), Family("erp_db_active_connections", "Database connections that are checked out of a pool.")
        )
        # A scrape sees connections that are out for milliseconds only by chance; the rate of this is their mean number.
        self._connection_seconds = self._group(
            "counter",
            (),
            Family("erp_db_connection_seconds", "Seconds that connections were checked out, once returned."),
        )
        self._pools = self._group(
            "gauge",
            ("pool",),
            Family("erp_db_pool_connections_used", "Connections of a pool that are checked out."),
            Family("erp_db_pool_waiting", "Requests for a connection of a pool that have not got one yet."),
            Family("erp_db_pool_connections", "Connections that a pool has."),
            Family("erp_db_pool_connections_max", "Connections that a pool may have."),
        )
        self._endpoint_queries = self._group(
            "counter",
            ("endpoint",),
            Family("erp_endpoint_db_queries", "Database queries by the endpoint that sent them."),
        )
        self._requests = self._group(
            "counter", ("endpoint", "method", "status"), Family("erp_http_requests", "Requests that ended.")
        )
        self._request_durations = self._group(
            "histogram",
            ("endpoint",),
            Family("erp_http_request_duration_seconds", "Time until a response was sent.", seconds),
            Family("erp_http_request_db_queries", "Database queries that a request sent until it ended.", queries),
        )

    @property
    def shared(self) -> bool:
        """Tell whether other processes show our numbers."""
        return isinstance(self._store, Shared)

    def _new_store(self) -> Store:
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        return Shared(directory) if directory else Memory()

    def _cells(self, group: Group, *labels: str) -> Cells:
        with self.lock:
            return group.cells(self._store, *labels)

    def restart(self) -> None:
        """Begin at 0 in a process that was forked: what was counted before is its parent's."""
        tallies: list[Tally] = [*self._queries.values(), *self._endpoints.values(), *self._answers.values()]
        for tally in tallies:
            tally.forget()
        self.lock = threading.RLock()
        self._store = self._new_store()
        for group in self._groups:
            group.move(self._store)

    def unregister(self) -> None:
        """Take the metrics out of the registry again."""
        self._registry.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Return every metric without samples."""
        return [metric for group in self._groups for metric in group.describe()]

    def collect(self) -> Iterator[Metric]:
        """Return every metric with this process's samples."""
        for refresh in self.refreshers:
            refresh()
        for group in self._groups:
            yield from group.collect(self.lock)

    def query(self, name: str, source: str) -> Series:
        """Return what a query name that came from some source counts in; it exists from then on."""
        series = self._queries.get((name, source))
        if series is None:
            self.start_query(name)
            counts, durations = self._cells(self._counts, name), self._cells(self._durations, name)
            series = self._queries[name, source] = Series(name, counts, durations, self._cells(self._sources, source))
        return series

    def start_query(self, name: str) -> None:
        """Let a query name's series exist before its first query."""
        self._cells(self._counts, name)
        self._cells(self._durations, name)
        for kind in sqlstate.COMMON:
            self._cells(self._errors, name, kind)

    def endpoint(self, template: str) -> Endpoint:
        """Return what an endpoint's queries count in, which exists from then on."""
        found = self._endpoints.get(template)
        if found is None:
            found = self._endpoints[template] = Endpoint(self._cells(self._endpoint_queries, template))
        return found

    def pool(self, name: str) -> Cells:
        """Return a pool's gauges: used, waiting, connections, most connections."""
        return self._cells(self._pools, name)

    def start_endpoint(self, template: str, methods: Iterable[str]) -> None:
        """Let an endpoint's series exist before its first request."""
        self.endpoint(template)
        self._cells(self._request_durations, template)
        for method in methods:
            for status in ("200", "500"):
                self._cells(self._requests, template, _method(method), status)

    def count_rows(self, series: Series, rows: int) -> None:
        """Count rows that came later than their query's end, as in a pipeline; the caller holds the lock."""
        series.counts.values[series.counts.at[1]] += rows

    def count_error(self, series: Series, sqlstate_class: str) -> None:
        """Count a query's error."""
        cells = self._errors.cells(self._store, series.name, sqlstate_class)
        cells.values[cells.at[0]] += 1.0

    def count_request(self, template: str, method: str, status: int, seconds: float, queries: int) -> None:
        """Count a request, how long it took and how many queries it sent."""
        found = self._answers.get((template, method, status)) or self._answer(template, _method(method), status)
        found.seconds.append(seconds)
        found.queries.append(queries)

    def _answer(self, template: str, method: str, status: int) -> Answers:
        found = self._answers.get((template, method, status))
        if found is None:
            requests = self._requests.cells(self._store, template, method, str(status))
            durations = self._request_durations.cells(self._store, template)
            found = self._answers[template, method, status] = Answers(requests, durations)
        return found

    def settle(self) -> None:
        """Add what was counted since the last time to the numbers that are shown."""
        # Most have nothing to add, four times a second.
        with self.lock:
            slow = self._bounds.index(self._slow) + 1
            for series in self._queries.values():
                if series.seconds:
                    series.settle(self._bounds, slow)
            # An application that starts adds its routes' meanwhile.
            for endpoint in list(self._endpoints.values()):
                if endpoint.queries:
                    endpoint.settle()
            for answers in self._answers.values():
                if answers.seconds:
                    answers.settle(self._bounds, _QUERIES)

    def add(self, cells: Cells, number: float, which: int = 0) -> None:
        """Add to one of some numbers."""
        with self.lock:
            cells.values[cells.at[which]] += number


def _method(name: str) -> str:
    return name if name in _METHODS else "other"
