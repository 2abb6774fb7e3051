"""SQLAlchemy, sync and async: statements of drivers that are not measured themselves, and its pools' connections."""

from typing import Any

from erp_metrics import measure
from erp_metrics.faults import fails_open
from erp_metrics.patching import on_undo

# Under these our hooks on psycopg's cursors count already.
_MEASURED_DRIVERS = frozenset({"psycopg", "psycopg_async"})
_RUNNING = "_erp_metrics_running"


def install(*, psycopg_measured: bool) -> None:
    """Listen to every engine and pool of the process. Raises ImportError without SQLAlchemy."""
    from sqlalchemy import event  # noqa: PLC0415 - the application may not have it
    from sqlalchemy.engine import Engine  # noqa: PLC0415
    from sqlalchemy.pool import Pool  # noqa: PLC0415

    skipped = _MEASURED_DRIVERS if psycopg_measured else frozenset[str]()

    @fails_open
    def before(conn: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        if context is not None and conn.dialect.driver not in skipped:
            setattr(context, _RUNNING, measure.begin(statement))

    @fails_open
    def after(_conn: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        _end(context)

    @fails_open
    def failed(failure: Any) -> None:
        _end(failure.execution_context)

    @fails_open
    def checkout(connection: Any, _record: Any, _proxy: Any) -> None:
        measure.checked_out(_driver(connection))

    @fails_open
    def checkin(connection: Any, _record: Any) -> None:
        if connection is not None:
            measure.returned(_driver(connection))

    @fails_open
    def invalidate(connection: Any, _record: Any, _error: Any) -> None:
        measure.returned(_driver(connection))

    for target, name, listener in (
        (Engine, "before_cursor_execute", before),
        (Engine, "after_cursor_execute", after),
        (Engine, "handle_error", failed),
        (Pool, "checkout", checkout),
        (Pool, "checkin", checkin),
        (Pool, "detach", checkin),
        (Pool, "invalidate", invalidate),
    ):
        event.listen(target, name, listener)
        on_undo(lambda target=target, name=name, listener=listener: event.remove(target, name, listener))  # type: ignore[misc]


def _end(context: Any) -> None:
    running = getattr(context, _RUNNING, None)
    if running is not None:
        setattr(context, _RUNNING, None)
        measure.end(running)


def _driver(connection: Any) -> Any:
    """Return the driver's own connection, which psycopg_pool may have counted: asyncio's are wrapped by SQLAlchemy."""
    return getattr(connection, "driver_connection", connection)
