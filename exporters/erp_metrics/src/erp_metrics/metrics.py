"""The metrics themselves; every known label value starts at 0, so that its first event is an increase."""

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.registry import Collector

NO_ENDPOINT = "none"
UNMATCHED = "unmatched"

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Series:
    """A counter and a histogram of the same events, looked up once."""

    __slots__ = ("count", "duration")

    def __init__(self, count: Counter, duration: Histogram) -> None:
        self.count = count
        self.duration = duration


class Metrics:
    """The application's metrics in one registry. Raises ValueError when it has metrics of these names already."""

    def __init__(self, slow_seconds: float, registry: CollectorRegistry = REGISTRY) -> None:
        """Register them, all or none; `slow_seconds` becomes a bound, so that slower queries can be counted exactly."""
        bounds = sorted({*_BOUNDS, float(slow_seconds)})
        self._registry = registry
        self._count = Counter(
            "erp_db_query_count", "Database queries that ended, well or not.", ["query_name"], registry=None
        )
        self._duration = Histogram(
            "erp_db_query_duration_seconds",
            "Duration of database queries, failed ones included.",
            ["query_name"],
            buckets=bounds,
            registry=None,
        )
        self.active_connections = Gauge(
            "erp_db_active_connections",
            "Database connections that are checked out of a pool.",
            multiprocess_mode="livesum",
            registry=None,
        )
        # A scrape sees connections that are out for milliseconds only by chance; the rate of this is their mean number.
        self.connection_seconds = Counter(
            "erp_db_connection_seconds", "Seconds that connections were checked out, once returned.", registry=None
        )
        self._endpoint_queries = Counter(
            "erp_endpoint_db_queries", "Database queries by the endpoint that sent them.", ["endpoint"], registry=None
        )
        self._requests = Counter(
            "erp_http_requests", "Requests that ended.", ["endpoint", "method", "status"], registry=None
        )
        self._request_duration = Histogram(
            "erp_http_request_duration_seconds",
            "Time until a response was sent.",
            ["endpoint"],
            buckets=bounds,
            registry=None,
        )
        self._queries: dict[str, Series] = {}
        self._endpoints: dict[str, Counter] = {}
        self._answers: dict[tuple[str, str, int], Series] = {}
        self._registered: list[Collector] = []
        try:
            self._register()
        except Exception:
            self.unregister()
            raise
        self.endpoint(NO_ENDPOINT)

    def _register(self) -> None:
        for metric in (
            self._count,
            self._duration,
            self.active_connections,
            self.connection_seconds,
            self._endpoint_queries,
            self._requests,
            self._request_duration,
        ):
            self._registry.register(metric)
            self._registered.append(metric)

    def unregister(self) -> None:
        """Take the metrics out of the registry again."""
        while self._registered:
            self._registry.unregister(self._registered.pop())

    def query(self, name: str) -> Series:
        """Return the series of a query name, which exist from then on."""
        series = self._queries.get(name)
        if series is None:
            series = Series(self._count.labels(name), self._duration.labels(name))
            self._queries[name] = series
        return series

    def endpoint(self, template: str) -> Counter:
        """Return the counter of an endpoint's queries, which exists from then on."""
        counter = self._endpoints.get(template)
        if counter is None:
            counter = self._endpoints[template] = self._endpoint_queries.labels(template)
        return counter

    def start_endpoint(self, template: str, methods: Iterable[str]) -> None:
        """Let an endpoint's series exist before its first request."""
        self.endpoint(template)
        self._request_duration.labels(template)
        for method in methods:
            for status in ("200", "500"):
                self._requests.labels(template, _method(method), status)

    def request(self, template: str, method: str, status: int, seconds: float) -> None:
        """Count a request and how long it took."""
        key = (template, _method(method), status)
        series = self._answers.get(key)
        if series is None:
            counter = self._requests.labels(template, key[1], str(status))
            series = self._answers[key] = Series(counter, self._request_duration.labels(template))
        series.count.inc()
        series.duration.observe(seconds)


def _method(name: str) -> str:
    return name if name in _METHODS else "other"
