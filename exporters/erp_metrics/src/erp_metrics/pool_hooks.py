"""psycopg_pool: connections that are checked out."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from erp_metrics import measure
from erp_metrics.patching import replace

_Method = Callable[..., Any]


def install() -> None:
    """Patch psycopg_pool's pools. Raises ImportError without psycopg_pool."""
    import psycopg_pool  # noqa: PLC0415 - the application may not have it

    for pool in (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool):
        replace(pool, "getconn", _getconn)
        replace(pool, "putconn", _putconn)


def _getconn(original: _Method) -> _Method:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def counted_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            connection = await original(self, *args, **kwargs)
            measure.checked_out(connection)
            return connection

        return counted_async

    @functools.wraps(original)
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        connection = original(self, *args, **kwargs)
        measure.checked_out(connection)
        return connection

    return counted


def _putconn(original: _Method) -> _Method:
    # Told before the pool has it back: from then on another thread may take it. A pool refuses a connection that is
    # not its own with ValueError.
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def counted_async(self: Any, conn: Any, *args: Any, **kwargs: Any) -> Any:
            was_out = measure.returned(conn)
            try:
                return await original(self, conn, *args, **kwargs)
            except ValueError:
                if was_out:
                    measure.checked_out(conn)
                raise

        return counted_async

    @functools.wraps(original)
    def counted(self: Any, conn: Any, *args: Any, **kwargs: Any) -> Any:
        was_out = measure.returned(conn)
        try:
            return original(self, conn, *args, **kwargs)
        except ValueError:
            if was_out:
                measure.checked_out(conn)
            raise

    return counted
