"""psycopg_pool: connections that are checked out or waited for."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from erp_metrics.connections import Pool
from erp_metrics.faults import fails_open
from erp_metrics.measure import switch
from erp_metrics.patching import replace

_Method = Callable[..., Any]


def install() -> None:
    """Patch psycopg_pool's pools. Raises ImportError without psycopg_pool."""
    import psycopg_pool  # noqa: PLC0415 - the application may not have it

    for pool in (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool):
        replace(pool, "getconn", _getconn)
        replace(pool, "putconn", _putconn)


def _sizes(pool: Any) -> tuple[int, int]:
    stats = pool.get_stats()
    return stats["pool_size"], stats["pool_max"]


@fails_open
def _wait(pool: Any) -> Pool | None:
    """Begin to wait for a connection."""
    if switch.recorder is None:
        return None
    numbers = switch.recorder.connections.pool(pool, pool.name, _sizes)
    numbers.waiting(1)
    return numbers


@fails_open
def _waited(pool: Any, numbers: Pool | None, connection: Any) -> None:
    """End to wait for a connection; None was not to be had."""
    if numbers is not None and switch.recorder is not None:
        numbers.waiting(-1)
        if switch.recorder.metrics.shared:
            # Nobody else can ask this process's pools when the metrics are shown.
            numbers.show(*_sizes(pool))
        if connection is not None:
            switch.recorder.connections.checked_out(connection, numbers)


@fails_open
def _returned(connection: Any) -> tuple[Pool | None] | None:
    return None if switch.recorder is None else switch.recorder.connections.returned(connection)


@fails_open
def _refused(connection: Any, was: tuple[Pool | None] | None) -> None:
    """Take back that a connection was returned."""
    if was is not None and switch.recorder is not None:
        switch.recorder.connections.checked_out(connection, *was)


def _getconn(original: _Method) -> _Method:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def counted_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            numbers, connection = _wait(self), None
            try:
                connection = await original(self, *args, **kwargs)
            finally:
                _waited(self, numbers, connection)
            return connection

        return counted_async

    @functools.wraps(original)
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        numbers, connection = _wait(self), None
        try:
            connection = original(self, *args, **kwargs)
        finally:
            _waited(self, numbers, connection)
        return connection

    return counted


def _putconn(original: _Method) -> _Method:
    # Told before the pool has it back: from then on another thread may take it. A pool refuses a connection that is
    # not its own with ValueError.
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def counted_async(self: Any, conn: Any, *args: Any, **kwargs: Any) -> Any:
            was = _returned(conn)
            try:
                return await original(self, conn, *args, **kwargs)
            except ValueError:
                _refused(conn, was)
                raise

        return counted_async

    @functools.wraps(original)
    def counted(self: Any, conn: Any, *args: Any, **kwargs: Any) -> Any:
        was = _returned(conn)
        try:
            return original(self, conn, *args, **kwargs)
        except ValueError:
            _refused(conn, was)
            raise

    return counted
