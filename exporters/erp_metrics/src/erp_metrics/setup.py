"""Setting everything up once per process, however many applications are instrumented."""

import atexit
import os
from collections.abc import Callable, Iterable, Mapping
from re import Pattern
from typing import Any

from erp_metrics import asgi, exposition, journal, measure, patching, pool_hooks, psycopg_hooks, sqlalchemy_hooks
from erp_metrics.faults import fails_open, log, report
from erp_metrics.measure import Recorder, switch
from erp_metrics.metrics import Metrics
from erp_metrics.names import Names

_served: set[tuple[str, int]] = set()

# Servers that load the application before they fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=measure.restart)
atexit.register(journal.count_all)


def instrument(
    app: Any,
    *,
    metrics_port: int | None,
    metrics_listen: str,
    queries: Iterable[str],
    statements: Mapping[str | Pattern[str], str],
    max_query_names: int,
    slow_seconds: float,
) -> Any:
    """See erp_metrics.instrument."""
    wrong = _wrong(metrics_port, queries, statements, max_query_names, slow_seconds)
    if wrong:
        log.error("instrument: %s; nothing is measured, and the application goes on without", wrong)
        return app
    recorder = _recorder(queries, statements, max_query_names, slow_seconds)
    if recorder is None:
        return app
    _install()
    if metrics_port is not None and (metrics_listen, metrics_port) not in _served:
        _served.add((metrics_listen, metrics_port))
        exposition.serve(metrics_port, metrics_listen)
    if app is None and recorder.metrics.shared:
        # An application's begins with the application: a server may still fork.
        journal.count_regularly()
    attached = _attach(app, recorder)
    return app if attached is None else attached


def remove() -> None:
    """Take the hooks out of psycopg and SQLAlchemy, and the metrics out of their registry; for tests and benchmarks."""
    patching.undo()
    if switch.recorder is not None:
        switch.recorder.metrics.unregister()
    measure.use(None)


def _wrong(port: Any, queries: Any, statements: Any, max_query_names: Any, slow_seconds: Any) -> str | None:
    """Return what is wrong with arguments that types do not tell the application's authors."""
    if port is not None and (type(port) is not int or not 0 < port < 65536):
        return f"metrics_port is a number up to 65535, not {port!r}"
    # A text is a list of its letters, too.
    if isinstance(queries, str):
        return f"queries is a list of names, not {queries!r}"
    for statement, name in dict(statements).items():
        if not isinstance(statement, (str, Pattern)) or not isinstance(name, str):
            return f"statements gives names to texts or patterns, not {name!r} to {statement!r}"
    if type(max_query_names) is not int or max_query_names < 0:
        return f"max_query_names is a whole number from 0 on, not {max_query_names!r}"
    if not slow_seconds > 0:
        return f"slow_seconds is above 0, not {slow_seconds!r}"
    return None


@fails_open
def _recorder(
    queries: Iterable[str], statements: Mapping[str | Pattern[str], str], max_query_names: int, slow_seconds: float
) -> Recorder | None:
    """Return the process's recorder; metrics and bounds are those of the first call, allow-lists add up."""
    if switch.recorder is None:
        measure.use(Recorder(Metrics(slow_seconds), Names(max_query_names)))
    recorder = switch.recorder
    if recorder is not None:
        recorder.allow(queries, statements)
    return recorder


@fails_open
def _attach(app: Any, recorder: Recorder) -> Any:
    return asgi.attach(app, recorder.metrics)


def _install() -> None:
    if patching.installed():
        return
    psycopg_measured = _hook(psycopg_hooks.install)
    _hook(pool_hooks.install)
    _hook(lambda: sqlalchemy_hooks.install(psycopg_measured=psycopg_measured))


def _hook(install: Callable[[], None]) -> bool:
    """Install a hook whole or not at all; False where its library is missing or has become another than we know."""
    before = patching.mark()
    try:
        install()
    except ImportError:
        return False
    except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
        patching.undo(before)
        report(f"{install.__module__}.{install.__qualname__}", fault)
        return False
    return True
