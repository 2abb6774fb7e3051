"""psycopg 3: statements whose rows come later than they are sent: streams, COPY and server-side cursors."""

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from erp_metrics import measure
from erp_metrics.faults import fails_open
from erp_metrics.measure import Running
from erp_metrics.patching import replace
from erp_metrics.sqlstate import CANCELLED, NO_SQLSTATE

_Method = Callable[..., Any]

# Server-side cursors whose rows are still being fetched: the time of fetching is the query's time.
_open: WeakKeyDictionary[Any, Running] = WeakKeyDictionary()


def install() -> None:
    """Patch psycopg's cursors. Raises ImportError without psycopg or libpq."""
    import psycopg  # noqa: PLC0415 - the application may not have it

    for cursor in (psycopg.Cursor, psycopg.AsyncCursor):
        replace(cursor, "stream", _stream)
        replace(cursor, "copy", _copy)
    for server_cursor in (psycopg.ServerCursor, psycopg.AsyncServerCursor):
        replace(server_cursor, "execute", _declare)
        replace(server_cursor, "close", _close)
        for owner in server_cursor.__mro__:
            replace(owner, "_fetch_gen", _fetch)


def _stream(original: _Method) -> _Method:
    """Time the fetching of rows, and not what the application does with each."""
    if inspect.isasyncgenfunction(original):

        @functools.wraps(original)
        async def measured_async(self: Any, query: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            running = measure.begin(query)
            try:
                async with contextlib.aclosing(original(self, query, *args, **kwargs)) as rows:
                    async for row in rows:
                        measure.pause(running, 1)
                        yield row
                        measure.resume(running)
            except GeneratorExit:
                measure.end(running)
                raise
            except BaseException as error:
                measure.end(running, error)
                raise
            measure.end(running)

        return measured_async

    @functools.wraps(original)
    def measured(self: Any, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        running = measure.begin(query)
        try:
            with contextlib.closing(original(self, query, *args, **kwargs)) as rows:
                for row in rows:
                    measure.pause(running, 1)
                    yield row
                    measure.resume(running)
        except GeneratorExit:
            measure.end(running)
            raise
        except BaseException as error:
            measure.end(running, error)
            raise
        measure.end(running)

    return measured


def _copy(original: _Method) -> _Method:
    """Time a COPY from its start until its last row is through."""
    inner = inspect.unwrap(original)
    if inspect.isasyncgenfunction(inner):

        @functools.wraps(inner)
        @contextlib.asynccontextmanager
        async def measured_async(self: Any, statement: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            running = measure.begin(statement)
            try:
                async with original(self, statement, *args, **kwargs) as copy:
                    yield copy
            except BaseException as error:
                _aborted(running, error)
                raise
            _copied(self, running)

        return measured_async

    @functools.wraps(inner)
    @contextlib.contextmanager
    def measured(self: Any, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        running = measure.begin(statement)
        try:
            with original(self, statement, *args, **kwargs) as copy:
                yield copy
        except BaseException as error:
            _aborted(running, error)
            raise
        _copied(self, running)

    return measured


def _declare(original: _Method) -> _Method:
    """Begin a server-side cursor's query; it ends when the cursor is closed, used again, or cannot be opened."""
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def measured_async(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            _finish(self)
            running = measure.begin(query)
            try:
                result = await original(self, query, *args, **kwargs)
            except BaseException as error:
                measure.end(running, error)
                raise
            _suspend(self, running)
            return result

        return measured_async

    @functools.wraps(original)
    def measured(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        _finish(self)
        running = measure.begin(query)
        try:
            result = original(self, query, *args, **kwargs)
        except BaseException as error:
            measure.end(running, error)
            raise
        _suspend(self, running)
        return result

    return measured


def _fetch(original: _Method) -> _Method:
    @functools.wraps(original)
    def measured(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        running = _open.get(self)
        measure.resume(running)
        rows = ()
        try:
            rows = yield from original(self, *args, **kwargs)
        except BaseException as error:
            if running is not None:
                running.error = measure.new_class(error)
            raise
        finally:
            measure.pause(running, len(rows))
        return rows

    return measured


def _close(original: _Method) -> _Method:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def measured_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            _finish(self)
            return await original(self, *args, **kwargs)

        return measured_async

    @functools.wraps(original)
    def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        _finish(self)
        return original(self, *args, **kwargs)

    return measured


@fails_open
def _copied(cursor: Any, running: Running | None) -> None:
    if running is not None:
        running.rows = max(cursor.rowcount, 0)
        measure.end(running)


@fails_open
def _aborted(running: Running | None, error: BaseException) -> None:
    if running is not None:
        # One that was counted already is another statement's, and ran through the block: no pipeline takes a COPY.
        running.error = CANCELLED if isinstance(error, asyncio.CancelledError) else NO_SQLSTATE
        measure.end(running, error)


@fails_open
def _suspend(cursor: Any, running: Running | None) -> None:
    measure.pause(running)
    if running is not None:
        _open[cursor] = running


@fails_open
def _finish(cursor: Any) -> None:
    running = _open.pop(cursor, None)
    measure.resume(running)
    measure.end(running)
