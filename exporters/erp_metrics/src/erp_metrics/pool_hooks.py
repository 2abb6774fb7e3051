"""psycopg_pool: connections that are checked out or waited for."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from erp_metrics.connections import asks, gave_back, took, waiting
from erp_metrics.patching import replace

_Method = Callable[..., Any]


def install() -> None:
    """Patch psycopg_pool's pools. Raises ImportError without psycopg_pool, TypeError when it is not as we know it."""
    import psycopg_pool  # noqa: PLC0415 - the application may not have it

    for pool in (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool):
        for name, arguments, wrap in _HOOKS:
            known = tuple(inspect.signature(getattr(pool, name), follow_wrapped=False).parameters)
            if known != arguments:
                raise TypeError(f"{pool.__name__}.{name} takes {', '.join(known)}: its connections are not counted")
            replace(pool, name, wrap)


def _sizes(pool: Any) -> tuple[int, int]:
    stats = pool.get_stats()
    return stats["pool_size"], stats["pool_max"]


def _getconn(original: _Method) -> _Method:
    # The pool's own number of those who wait has some in it that have given up.
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def counted_async(self: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg_pool's
            asked = asks(self, _sizes)
            try:
                connection = await original(self, timeout)
            finally:
                waiting.discard(asked)
            took(connection, self)
            return connection

        return counted_async

    @functools.wraps(original)
    def counted(self: Any, timeout: float | None = None) -> Any:
        asked = asks(self, _sizes)
        try:
            connection = original(self, timeout)
        finally:
            waiting.discard(asked)
        took(connection, self)
        return connection

    return counted


def _putconn(original: _Method) -> _Method:
    # A pool refuses what is not its own, or was given back before; it knows that by an attribute.
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def counted_async(self: Any, conn: Any) -> Any:
            if getattr(conn, "_pool", self) is self:
                gave_back(conn)
            return await original(self, conn)

        return counted_async

    @functools.wraps(original)
    def counted(self: Any, conn: Any) -> Any:
        if getattr(conn, "_pool", self) is self:
            gave_back(conn)
        return original(self, conn)

    return counted


# What the wrappers take one by one, as in `psycopg_hooks`: gathering arguments would cost more.
_HOOKS = (("getconn", ("self", "timeout"), _getconn), ("putconn", ("self", "conn"), _putconn))
