"""SQLAlchemy, sync and async: statements of drivers that are not measured themselves, and its pools' connections."""

import functools
from collections.abc import Callable
from typing import Any

from erp_metrics import measure
from erp_metrics.connections import Pool
from erp_metrics.faults import fails_open
from erp_metrics.measure import switch
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
    if switch.recorder is not None:
        switch.recorder.connections.checked_out(_driver(connection), _numbers(getattr(proxy, "_pool", None)))


@fails_open
def _checkin(connection: Any, _record: Any, _error: Any = None) -> None:
    if connection is not None and switch.recorder is not None:
        switch.recorder.connections.returned(_driver(connection))


def _connect(queue_pool: type, original: Callable[..., Any]) -> Callable[..., Any]:
    """Wait for a connection of a pool that lets one wait."""

    @functools.wraps(original)
    def counted(self: Any) -> Any:
        numbers = _wait(self) if isinstance(self, queue_pool) else None
        try:
            return original(self)
        finally:
            _waited(self, numbers)

    return counted


@fails_open
def _wait(pool: Any) -> Pool | None:
    numbers = _numbers(pool)
    if numbers is not None:
        numbers.waiting(1)
    return numbers


@fails_open
def _waited(pool: Any, numbers: Pool | None) -> None:
    if numbers is not None:
        numbers.waiting(-1)
        if switch.recorder is not None and switch.recorder.metrics.shared:
            # Nobody else can ask this process's pools when the metrics are shown.
            numbers.show(*_sizes(pool))


def _numbers(pool: Any) -> Pool | None:
    """Return the numbers of a pool that has a size, None for others, such as NullPool."""
    if switch.recorder is None or not hasattr(pool, "checkedin"):
        return None
    return switch.recorder.connections.pool(pool, getattr(pool, "logging_name", None) or "sqlalchemy", _sizes)


def _sizes(pool: Any) -> tuple[int, int]:
    overflow = getattr(pool, "_max_overflow", 0)
    return pool.checkedin() + pool.checkedout(), pool.size() + overflow if overflow >= 0 else 0


def _driver(connection: Any) -> Any:
    """Return the driver's own connection, which psycopg_pool may have counted: asyncio's are wrapped by SQLAlchemy."""
    return getattr(connection, "driver_connection", connection)
