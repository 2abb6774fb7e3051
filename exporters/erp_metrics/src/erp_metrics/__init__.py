"""An ERP's own database queries and requests as Prometheus metrics. Two lines: the import, and `instrument(app)`."""

import logging
from collections.abc import Iterable, Mapping
from re import Pattern
from types import MappingProxyType
from typing import TypeVar, cast

from erp_metrics.context import query

__version__ = "0.1.0"
__all__ = ["__version__", "instrument", "query"]

_App = TypeVar("_App")


def instrument(
    app: _App,
    *,
    metrics_port: int | None = None,
    metrics_listen: str = "127.0.0.1",
    queries: Iterable[str] = (),
    statements: Mapping[str | Pattern[str], str] = MappingProxyType({}),
    max_query_names: int = 100,
    slow_seconds: float = 1.0,
) -> _App:
    """Measure an ASGI application's requests and this process's database queries; never raises.

    FastAPI and Starlette applications are changed in place and returned; any other ASGI callable is returned wrapped.
    `queries` are the only query names shown, the rest is `other`; without, the first `max_query_names` are.
    `statements` names statements by their text, or by a pattern that is searched for in it.
    """
    try:
        from erp_metrics import setup  # noqa: PLC0415 - a broken prometheus_client must not break the application

        measured = setup.instrument(
            app,
            metrics_port=metrics_port,
            metrics_listen=metrics_listen,
            queries=queries,
            statements=statements,
            max_query_names=max_query_names,
            slow_seconds=slow_seconds,
        )
    except Exception:
        logging.getLogger("erp_metrics").exception("nothing is measured; the application goes on without")
        return app
    return cast(_App, measured)
