"""psycopg 3: every statement of every cursor, counted once.

In a pipeline `execute` returns as soon as the statement is queued: it is counted, its duration is that of queueing; its
rows and its error are counted when they arrive.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from erp_metrics import measure, psycopg_fetches
from erp_metrics.context import block_of, current
from erp_metrics.faults import fails_open
from erp_metrics.journal import BATCH, LONG, count_batch, ended
from erp_metrics.measure import done, failed
from erp_metrics.patching import replace

_Method = Callable[..., Any]

# Those of `execute` that its hot path passes on.
_ARGUMENTS = ("self", "query", "params", "prepare", "binary")

# The latest statement that a cursor queued in a pipeline, and its block.
_queued: WeakKeyDictionary[Any, tuple[Any, str | None]] = WeakKeyDictionary()


def install() -> None:
    """Patch psycopg's cursors. Raises ImportError without psycopg or libpq."""
    import psycopg  # noqa: PLC0415 - the application may not have it

    for cursor in (psycopg.Cursor, psycopg.AsyncCursor):
        arguments = inspect.signature(cursor.execute, follow_wrapped=False).parameters
        known = tuple(arguments) == _ARGUMENTS and hasattr(cursor, "_rowcount")
        replace(cursor, "execute", _execute if known else _execute_any)
        replace(cursor, "executemany", _execute_any)
    for owner in psycopg.Pipeline.__mro__:
        replace(owner, "_process_results", _process)
    psycopg_fetches.install()


def _execute(original: _Method) -> _Method:
    # The hot path: no object, no context manager, no further function of Python (as `rowcount` would be), and psycopg's
    # own arguments by name: gathered and spread again, they would cost as much as the rest.
    context_now, noted = current.get, ended.append
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def measured_async(
            self: Any, query: Any, params: Any = None, *, prepare: Any = None, binary: Any = None
        ) -> Any:
            started = perf_counter()
            try:
                result = await original(self, query, params, prepare=prepare, binary=binary)
            except BaseException as error:
                failed(query, perf_counter() - started, error)
                raise
            seconds = perf_counter() - started
            rows = self._rowcount
            noted((query, context_now(), seconds, rows))
            if seconds > LONG or len(ended) >= BATCH:
                count_batch()
            if rows < 0:
                _queue(self, query)
            return result

        return measured_async

    @functools.wraps(original)
    def measured(self: Any, query: Any, params: Any = None, *, prepare: Any = None, binary: Any = None) -> Any:
        started = perf_counter()
        try:
            result = original(self, query, params, prepare=prepare, binary=binary)
        except BaseException as error:
            failed(query, perf_counter() - started, error)
            raise
        seconds = perf_counter() - started
        rows = self._rowcount
        noted((query, context_now(), seconds, rows))
        if seconds > LONG or len(ended) >= BATCH:
            count_batch()
        if rows < 0:
            _queue(self, query)
        return result

    return measured


def _execute_any(original: _Method) -> _Method:
    """Count `executemany`, and `execute` of a psycopg that has changed its arguments."""
    # Outside of a pipeline, psycopg makes one for `executemany`: its results are not to be counted twice.
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def measured_async(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            _queued.pop(self, None)
            started = perf_counter()
            try:
                result = await original(self, query, *args, **kwargs)
            except BaseException as error:
                failed(query, perf_counter() - started, error)
                raise
            done(query, perf_counter() - started, _rows_of_all(self))
            _queue(self, query)
            return result

        return measured_async

    @functools.wraps(original)
    def measured(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        _queued.pop(self, None)
        started = perf_counter()
        try:
            result = original(self, query, *args, **kwargs)
        except BaseException as error:
            failed(query, perf_counter() - started, error)
            raise
        done(query, perf_counter() - started, _rows_of_all(self))
        _queue(self, query)
        return result

    return measured


def _process(original: _Method) -> _Method:
    """Count rows and errors that come out of a pipeline."""

    @functools.wraps(original)
    def counted(self: Any, queued: Any, results: Any) -> Any:
        known = _queued.get(queued[0]) if queued else None
        try:
            result = original(self, queued, results)
        except Exception as error:
            if known is not None:
                measure.came(*known, 0, error)
            raise
        if known is not None:
            measure.came(*known, _rows(results) or 0, None)
        return result

    return counted


@fails_open
def _queue(cursor: Any, query: Any) -> None:
    """Remember whose the results of a pipeline are."""
    if cursor.connection.pgconn.pipeline_status:
        _queued[cursor] = query, block_of(current.get())


@fails_open
def _rows(results: Iterable[Any]) -> int:
    # Where rows were returned, `ntuples` are as many; elsewhere it is 0.
    return sum(result.ntuples or result.command_tuples or 0 for result in results)


def _rows_of_all(cursor: Any) -> int:
    """Return the rows of every set of parameters; RETURNING ones keep a result each."""
    results = getattr(cursor, "_results", ())
    return (_rows(results) or 0) if len(results) > 1 else int(cursor.rowcount)
