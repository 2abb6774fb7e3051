"""What the hooks call when queries begin and end: the hot path, written for few calls."""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from re import Pattern
from time import perf_counter
from typing import Any, Protocol

from erp_metrics import sql
from erp_metrics.connections import Connections
from erp_metrics.faults import fails_open, report
from erp_metrics.groups import Cells
from erp_metrics.metrics import Asking, Metrics, Series
from erp_metrics.names import BLOCK, OTHER, Names, current_block

# Names come from a statement's beginning; what is longer is remembered by that.
_LONGEST_KEY = 4000
_CACHED = 2000
_SHORTEST = 4


class Request(Asking, Protocol):
    """The request that is being answered."""

    endpoint: Cells | None

    def find_endpoint(self) -> Cells:
        """Return the counter of its endpoint's queries."""


current_request: ContextVar[Request | None] = ContextVar("erp_metrics_request", default=None)


class Running:
    """A query under way whose end comes by another call; `elapsed` seconds were spent on it before `started`."""

    __slots__ = ("elapsed", "request", "rows", "series", "started")

    def __init__(self, series: Series, request: Request | None) -> None:
        self.series = series
        self.request = request
        self.elapsed = 0.0
        self.rows = 0
        self.started = perf_counter()


class Recorder:
    """Counts and times queries under their names and endpoints."""

    def __init__(self, metrics: Metrics, names: Names) -> None:
        """Take the metrics and the names to count under."""
        self.metrics = metrics
        self.names = names
        self.connections = Connections(metrics)
        self._by_text: dict[str, Series | None] = {}
        self._by_block: dict[str, Series] = {}

    def allow(self, queries: Iterable[str], statements: Mapping[str | Pattern[str], str]) -> None:
        """Add names to the allow-list, and names of statements; each begins at 0."""
        self.names.declare(statements)
        self.names.allow(queries)
        self._by_text.clear()
        self._by_block.clear()
        for name in (*self.names.known, OTHER):
            self.metrics.start_query(name)

    def series(self, statement: Any) -> Series | None:
        """Return what a statement counts in; None if it is empty, such as the pools' connection checks."""
        block = current_block.get()
        if block is not None:
            if isinstance(statement, (str, bytes)) and len(statement) < _SHORTEST and sql.is_empty(statement):
                return None
            known = self._by_block.get(block)
            return known or self._learn_block(block)
        text = statement if type(statement) is str else sql.text_of(statement)
        if len(text) > _LONGEST_KEY:
            text = text[:_LONGEST_KEY]
        try:
            return self._by_text[text]
        except KeyError:
            return self._learn_text(text)

    def ended(self, series: Series, request: Request | None, seconds: float, rows: int) -> None:
        """Count a query that has ended, well or not."""
        endpoint = self.metrics.no_endpoint if request is None else request.endpoint or request.find_endpoint()
        self.metrics.count_query(series, endpoint, request, seconds, rows)

    def restart(self) -> None:
        """Begin anew in a forked process."""
        self.metrics.restart()
        self.connections.restart()

    def _learn_block(self, block: str) -> Series:
        if len(self._by_block) >= _CACHED:
            self._by_block.clear()
        series = self._by_block[block] = self.metrics.query(*self.names.bounded(block, BLOCK))
        return series

    def _learn_text(self, text: str) -> Series | None:
        named = self.names.of(text)
        if len(self._by_text) >= _CACHED:
            self._by_text.clear()
        series = self._by_text[text] = None if named is None else self.metrics.query(*named)
        return series


class _Switch:
    """The process's recorder, once there is one."""

    recorder: Recorder | None = None


switch = _Switch()


def done(statement: Any, seconds: float, rows: int) -> Series | None:
    """Count a statement that went well; returns what it counted in."""
    try:
        recorder = switch.recorder
        if recorder is None:
            return None
        series = recorder.series(statement)
        if series is not None:
            recorder.ended(series, current_request.get(), seconds, rows)
    except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
        report("done", fault)
        return None
    return series


def failed(statement: Any, seconds: float, error: BaseException) -> None:
    """Count a statement that failed."""
    series = done(statement, seconds, 0)
    if series is not None:
        count_error(series, error)


@fails_open
def count_error(series: Series, error: BaseException) -> None:
    """Count an error, once: a pipeline raises that of one statement out of another, too."""
    if switch.recorder is not None and not getattr(error, "erp_metrics_counted", False):
        error.erp_metrics_counted = True  # type: ignore[attr-defined]
        switch.recorder.metrics.count_error(series, error)


@fails_open
def count_rows(series: Series, rows: int) -> None:
    """Count rows that came later than their query's end."""
    if switch.recorder is not None and rows > 0:
        switch.recorder.metrics.count_rows(series, rows)


@fails_open
def begin(statement: Any) -> Running | None:
    """Begin to measure a query whose end another call will tell; None when there is nothing to measure."""
    recorder = switch.recorder
    series = None if recorder is None else recorder.series(statement)
    return None if series is None else Running(series, current_request.get())


@fails_open
def end(running: Running | None, error: BaseException | None = None) -> None:
    """Count a query, whether it went well or not."""
    if running is not None and switch.recorder is not None:
        seconds = running.elapsed + perf_counter() - running.started
        switch.recorder.ended(running.series, running.request, seconds, running.rows)
        if error is not None:
            count_error(running.series, error)


@fails_open
def pause(running: Running | None, rows: int = 0) -> None:
    """Stop a query's clock while the application does something else with the rows it got."""
    if running is not None:
        running.elapsed += perf_counter() - running.started
        running.rows += rows


@fails_open
def resume(running: Running | None) -> None:
    """Let a paused query's clock run again."""
    if running is not None:
        running.started = perf_counter()


@fails_open
def restart() -> None:
    """Begin anew in a forked process."""
    if switch.recorder is not None:
        switch.recorder.restart()
