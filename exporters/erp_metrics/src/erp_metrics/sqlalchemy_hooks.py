"""SQLAlchemy, sync and async: statements of drivers that are not measured themselves, and its pools' connections."""

import functools
from collections.abc import Callable
from typing import Any

from erp_metrics import measure
from erp_metrics.connections import asks, gave_back, took, waiting
from erp_metrics.faults import fails_open
from erp_metrics.patching import on_undo, replace

# Under these our hooks on psycopg's cursors count already.
_MEASURED_DRIVERS = frozenset({"psycopg", "psycopg_async"})
_RUNNING = "_erp_metrics_running"


def install(*, psycopg_measured: bool) -> None:
    """Listen to every engine and pool of the process. Raises ImportError without SQLAlchemy."""
    from sqlalchemy import event, pool  # noqa: PLC0415 - the application may not have it
    from sqlalchemy.engine import Engine  # noqa: PLC0415

    skipped = _MEASURED_DRIVERS if psycopg_measured else frozenset[str]()

    @fails_open
    def before(conn: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        if context is not None and conn.dialect.driver not in skipped:
            setattr(context, _RUNNING, measure.begin(statement))

    for target, name, listener in (
        (Engine, "before_cursor_execute", before),
        (Engine, "after_cursor_execute", _after),
        (Engine, "handle_error", _failed),
        (pool.Pool, "checkout", _checkout),
        (pool.Pool, "checkin", _checkin),
        (pool.Pool, "detach", _checkin),
        (pool.Pool, "invalidate", _checkin),
    ):
        event.listen(target, name, listener)
        on_undo(lambda target=target, name=name, listener=listener: event.remove(target, name, listener))  # type: ignore[misc]
    replace(pool.Pool, "connect", functools.partial(_connect, pool.QueuePool))


@fails_open
def _after(_conn: Any, cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
    running = getattr(context, _RUNNING, None)
    if running is not None:
        running.rows = max(getattr(cursor, "rowcount", 0), 0)
        setattr(context, _RUNNING, None)
        measure.end(running)


@fails_open
def _failed(failure: Any) -> None:
    context = failure.execution_context
    running = getattr(context, _RUNNING, None)
    if running is not None:
        setattr(context, _RUNNING, None)
        measure.end(running, failure.original_exception)


@fails_open
def _checkout(connection: Any, _record: Any, proxy: Any) -> None:
    took(_driver(connection), proxy._pool)  # noqa: SLF001 - SQLAlchemy does not tell it otherwise


@fails_open
def _checkin(connection: Any, _record: Any, _error: Any = None) -> None:
    if connection is not None:
        gave_back(_driver(connection))


def _connect(queue_pool: type, original: Callable[..., Any]) -> Callable[..., Any]:
    """Wait for a connection of a pool that lets one wait."""

    @functools.wraps(original)
    def counted(self: Any) -> Any:
        if not isinstance(self, queue_pool):
            return original(self)
        asked = asks(self, _sizes)
        try:
            return original(self)
        finally:
            waiting.discard(asked)

    return counted


def _sizes(pool: Any) -> tuple[int, int]:
    overflow = getattr(pool, "_max_overflow", 0)
    return pool.checkedin() + pool.checkedout(), pool.size() + overflow if overflow >= 0 else 0


def _driver(connection: Any) -> Any:
    """Return the driver's own connection, which psycopg_pool may have counted: asyncio's are wrapped by SQLAlchemy."""
    return getattr(connection, "driver_connection", connection)
