"""What the hooks call: begin and end of a query, and connections that go out and come back."""

import threading
from collections.abc import Iterable
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Protocol

from prometheus_client import Counter

from erp_metrics.faults import fails_open
from erp_metrics.metrics import NO_ENDPOINT, Metrics, Series
from erp_metrics.names import OTHER, Names


class Request(Protocol):
    """The request that is being answered."""

    @property
    def template(self) -> str:
        """Its route template."""


current_request: ContextVar[Request | None] = ContextVar("erp_metrics_request", default=None)


class Running:
    """A query under way; `elapsed` seconds have been spent on it before `started`."""

    __slots__ = ("elapsed", "endpoint", "series", "started")

    def __init__(self, series: Series, endpoint: Counter) -> None:
        self.series = series
        self.endpoint = endpoint
        self.elapsed = 0.0
        self.started = perf_counter()


class Recorder:
    """Counts and times queries, and knows which connections are checked out."""

    def __init__(self, metrics: Metrics, names: Names) -> None:
        """Take the metrics and the names to count under."""
        self.metrics = metrics
        self.names = names
        self._lock = threading.Lock()
        self._out: dict[int, float] = {}

    def allow(self, queries: Iterable[str]) -> None:
        """Add names to the allow-list; each begins at 0."""
        self.names.allow(queries)
        for name in self.names.known:
            self.metrics.query(name)
        if self.names.known:
            self.metrics.query(OTHER)

    def begin(self, statement: Any) -> Running | None:
        """Return a query's measurement; None for an empty statement."""
        name = self.names.of(statement)
        if name is None:
            return None
        request = current_request.get()
        endpoint = self.metrics.endpoint(NO_ENDPOINT if request is None else request.template)
        return Running(self.metrics.query(name), endpoint)

    def checked_out(self, connection: object) -> None:
        """Note that a pool has given a connection away; told twice, it counts once."""
        with self._lock:
            if id(connection) not in self._out:
                self._out[id(connection)] = perf_counter()
                self.metrics.active_connections.inc()

    def returned(self, connection: object) -> bool:
        """Note that a pool has a connection back, or has given it up; False if it was not out."""
        with self._lock:
            if id(connection) not in self._out:
                return False
            seconds = perf_counter() - self._out.pop(id(connection))
            self.metrics.active_connections.dec()
            self.metrics.connection_seconds.inc(seconds)
            return True


class _Switch:
    """The process's recorder, once there is one."""

    recorder: Recorder | None = None


switch = _Switch()


@fails_open
def begin(statement: Any) -> Running | None:
    """Begin to measure a query; None when there is nothing to measure."""
    return None if switch.recorder is None else switch.recorder.begin(statement)


@fails_open
def end(running: Running | None) -> None:
    """Count a query and observe its duration, whether it went well or not."""
    if running is not None:
        seconds = running.elapsed + perf_counter() - running.started
        running.series.count.inc()
        running.series.duration.observe(seconds)
        running.endpoint.inc()


@fails_open
def pause(running: Running | None) -> None:
    """Stop a query's clock while the application does something else."""
    if running is not None:
        running.elapsed += perf_counter() - running.started


@fails_open
def resume(running: Running | None) -> None:
    """Let a paused query's clock run again."""
    if running is not None:
        running.started = perf_counter()


@fails_open
def checked_out(connection: object) -> None:
    """See Recorder.checked_out."""
    if switch.recorder is not None:
        switch.recorder.checked_out(connection)


@fails_open
def returned(connection: object) -> bool:
    """See Recorder.returned."""
    return switch.recorder is not None and switch.recorder.returned(connection)
