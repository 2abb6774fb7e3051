"""psycopg_pool: connections that are checked out or waited for."""

import functools
import inspect
from collections.abc import Callable
from time import perf_counter
from typing import Any

from erp_metrics.journal import BACK, GOT, WAIT, WAITED, note
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


def _getconn(original: _Method) -> _Method:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def counted_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            note((WAIT, self, 0, _sizes, 0.0, 0, None))
            try:
                connection = await original(self, *args, **kwargs)
            except BaseException:
                note((WAITED, self, 0, _sizes, 0.0, 0, None))
                raise
            note((GOT, self, id(connection), _sizes, perf_counter(), 0, None))
            return connection

        return counted_async

    @functools.wraps(original)
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        note((WAIT, self, 0, _sizes, 0.0, 0, None))
        try:
            connection = original(self, *args, **kwargs)
        except BaseException:
            note((WAITED, self, 0, _sizes, 0.0, 0, None))
            raise
        note((GOT, self, id(connection), _sizes, perf_counter(), 0, None))
        return connection

    return counted


def _putconn(original: _Method) -> _Method:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def counted_async(self: Any, conn: Any, *args: Any, **kwargs: Any) -> Any:
            _give_back(self, conn)
            return await original(self, conn, *args, **kwargs)

        return counted_async

    @functools.wraps(original)
    def counted(self: Any, conn: Any, *args: Any, **kwargs: Any) -> Any:
        _give_back(self, conn)
        return original(self, conn, *args, **kwargs)

    return counted


def _give_back(pool: Any, connection: Any) -> None:
    """Note a connection before its pool has it back: from then on another thread may take it.

    A pool refuses what is not its own, or was given back before; it knows that by an attribute.
    """
    if getattr(connection, "_pool", pool) is pool:
        note((BACK, None, id(connection), None, perf_counter(), 0, None))
