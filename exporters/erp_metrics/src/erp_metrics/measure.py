"""What the hooks call when queries begin and end, and how it is counted."""

from collections import deque
from collections.abc import Iterable, Mapping
from re import Pattern
from time import perf_counter
from typing import Any

from erp_metrics import journal, sql
from erp_metrics.connections import Connections
from erp_metrics.context import Block, block_of, current
from erp_metrics.faults import fails_open, report
from erp_metrics.journal import ANSWERED, BATCH, RETURNED, Ended, Result, note_end, note_result
from erp_metrics.metrics import Metrics
from erp_metrics.names import BLOCK, OTHER, Names
from erp_metrics.sqlstate import class_of
from erp_metrics.tallies import Series

# Names come from a statement's beginning; what is longer is remembered by that.
_LONGEST_KEY = 4000
_CACHED = 2000
_SHORTEST = 4
# Entries that wait to be added up: few where nobody asks for the numbers, fewer where another process shows them.
_MOST_UNSETTLED = {False: 10_000, True: BATCH}


class Running:
    """A query under way whose end comes by another call; `elapsed` seconds were spent on it before `started`."""

    __slots__ = ("context", "elapsed", "error", "rows", "started", "statement")

    def __init__(self, statement: Any) -> None:
        self.statement = statement
        self.context = current.get()
        self.elapsed = 0.0
        self.rows = 0
        self.error: str | None = None
        self.started = perf_counter()


class Recorder:
    """Counts queries and requests under their names and endpoints."""

    def __init__(self, metrics: Metrics, names: Names) -> None:
        """Take the metrics and the names to count under."""
        self.metrics = metrics
        self.names = names
        self.connections = Connections(metrics)
        self._by_text: dict[str, Series | None] = {}
        self._by_block: dict[str, Series] = {}
        self._unsettled = 0
        metrics.refreshers += [journal.count_all, self.connections.refresh]

    def allow(self, queries: Iterable[str], statements: Mapping[str | Pattern[str], str]) -> None:
        """Add names to the allow-list, and names of statements; each begins at 0."""
        journal.count_all()
        self.names.declare(statements)
        self.names.allow(queries)
        self._by_text.clear()
        self._by_block.clear()
        for name in (*self.names.known, OTHER):
            self.metrics.start_query(name)

    def count(self, ended: deque[Ended], results: deque[Result]) -> None:
        """Take what was noted, and count it; never raises."""
        with self.metrics.lock:
            self._count_ended(ended)
            for _ in range(len(results)):
                try:
                    self._count_result(*results.popleft())
                except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
                    report("Recorder.count", fault)
        if self._unsettled >= _MOST_UNSETTLED[self.metrics.shared]:
            self.settle()

    @fails_open
    def settle(self) -> None:
        """Let what was counted be seen."""
        if self._unsettled:
            self.metrics.settle()
            self._unsettled = 0
        if self.metrics.shared:
            # Nobody else can ask this process's pools when the metrics are shown.
            self.connections.refresh()

    def _count_ended(self, ended: deque[Ended]) -> None:
        """Count queries, and requests and connections in between; as few calls as can be."""
        take, known, no_endpoint = ended.popleft, self._by_text.get, self.metrics.no_endpoint
        number = len(ended)
        for _ in range(number):
            try:
                statement, context, seconds, rows = take()
                if statement is ANSWERED:
                    request, status = context, rows
                    template = request.template or request.find_template()
                    self.metrics.count_request(template, request.method, status, seconds, request.queries)
                    continue
                if statement is RETURNED:
                    self.connections.seconds += seconds
                    continue
                if isinstance(context, Block):
                    request = context.request
                    series = self.series(statement, context.by.name)
                else:
                    request = context
                    series = (known(statement) if type(statement) is str else None) or self.series(statement, None)
                if series is None:
                    continue
                series.seconds.append(seconds)
                if rows > 0:
                    series.rows += rows
                if request is None:
                    no_endpoint.queries += 1
                else:
                    request.queries += 1
                    self.metrics.endpoint(request.template or request.find_template()).queries += 1
            except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
                report("Recorder.count", fault)
        self._unsettled += number

    def _count_result(self, statement: Any, block: str | None, rows: int, error: str | None) -> None:
        series = self.series(statement, block)
        if series is not None:
            if rows > 0:
                self.metrics.count_rows(series, rows)
            if error is not None:
                self.metrics.count_error(series, error)

    def series(self, statement: Any, block: str | None) -> Series | None:
        """Return what a statement counts in; None if it is empty, such as the pools' connection checks."""
        if block is not None:
            if isinstance(statement, (str, bytes)) and len(statement) < _SHORTEST and sql.is_empty(statement):
                return None
            return self._by_block.get(block) or self._learn_block(block)
        text = statement if type(statement) is str else sql.text_of(statement)
        if len(text) > _LONGEST_KEY:
            text = text[:_LONGEST_KEY]
        try:
            return self._by_text[text]
        except KeyError:
            return self._learn_text(text)

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


def use(recorder: Recorder | None) -> None:
    """Let a recorder count from now on, or nobody."""
    switch.recorder = recorder
    journal.open_for(recorder)


def done(statement: Any, seconds: float, rows: int) -> None:
    """Note a statement that went well; never raises."""
    note_end((statement, current.get(), seconds, rows))


def failed(statement: Any, seconds: float, error: BaseException) -> None:
    """Note a statement that failed; never raises."""
    done(statement, seconds, 0)
    came(statement, block_of(current.get()), 0, error)


@fails_open
def new_class(error: BaseException) -> str | None:
    """Return an error's class, once: a pipeline raises that of one statement out of another, too."""
    if getattr(error, "erp_metrics_counted", False):
        return None
    error.erp_metrics_counted = True  # type: ignore[attr-defined]
    return class_of(error)


def came(statement: Any, block: str | None, rows: int, error: BaseException | None) -> None:
    """Note rows or an error that came later than their query's end."""
    kind = None if error is None else new_class(error)
    if rows or kind is not None:
        note_result((statement, block, rows, kind))


@fails_open
def begin(statement: Any) -> Running:
    """Begin to measure a query whose end another call will tell."""
    return Running(statement)


@fails_open
def end(running: Running | None, error: BaseException | None = None) -> None:
    """Note a query's end, whether it went well or not."""
    if running is not None:
        seconds = running.elapsed + perf_counter() - running.started
        note_end((running.statement, running.context, seconds, running.rows))
        kind = (None if error is None else new_class(error)) or running.error
        if kind is not None:
            note_result((running.statement, block_of(running.context), 0, kind))


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
        try:
            switch.recorder.restart()
        finally:
            journal.restart()
