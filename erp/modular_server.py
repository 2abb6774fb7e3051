"""The ERP's server: one module per concern, measured by erp_metrics in two lines."""

import contextlib
import logging
from collections.abc import AsyncIterator

import psycopg
import sqlalchemy.exc
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse

import erp_metrics
from erp import __version__
from erp.config import Config
from erp.database import Database
from erp.endpoints import DatabaseOf, artikel, berichte, bewegungen, chargen
from erp.queries import NAMES

_log = logging.getLogger("erp")

# Within systemd's patience and well under five seconds, with the pool's closing.
_GRACE_SECONDS = 2


def create_app(config: Config) -> FastAPI:
    """Return the application; it connects when it starts, and starts without a database too."""
    database = Database(config)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with database.opened():
            yield

    app = FastAPI(title="Demo ERP", version=__version__, lifespan=lifespan)
    app.state.database = database
    for module in (artikel, chargen, bewegungen, berichte):
        app.include_router(module.router)
    app.add_api_route("/healthz", _healthz)
    app.add_api_route("/", _index, include_in_schema=False, response_class=HTMLResponse)
    for unavailable in (psycopg.OperationalError, sqlalchemy.exc.OperationalError, sqlalchemy.exc.TimeoutError):
        app.add_exception_handler(unavailable, _unavailable)
    erp_metrics.instrument(app, metrics_port=config.metrics_port, metrics_listen=config.metrics_listen, queries=NAMES)
    return app


async def _index(request: Request) -> str:
    """List what can be asked; /docs, which tries it out, loads its scripts from the internet."""
    paths = request.app.openapi()["paths"]
    rows = "".join(
        f"<tr><td>{method.upper()}<td><code>{path}</code><td>{operation.get('description', '')}"
        for path, operations in paths.items()
        for method, operation in operations.items()
    )
    links = " · ".join(f'<a href="{path}">{path}</a>' for path in ("/kategorien", "/lager", "/docs", "/openapi.json"))
    return f"<!DOCTYPE html><html lang=en><title>Demo ERP</title><h1>Demo ERP</h1><p>{links}<table>{rows}</table>"


async def _healthz(database: DatabaseOf) -> dict[str, str]:
    """Tell whether the database answers."""
    try:
        await database.answers()
    except TimeoutError as error:
        raise psycopg.OperationalError("the database does not answer in time") from error
    return {"status": "ok"}


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    """Answer 503 where the database is away, overloaded, or took too long."""
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    _log.error("%s %s: %s", request.method, request.url.path, reason)
    return JSONResponse({"detail": "the database is not available; try again"}, 503, {"Retry-After": "5"})


def serve(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; return 0. Requests under way get a little time to end."""
    settings = uvicorn.Config(
        create_app(config),
        host=config.listen,
        port=config.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run()
    return 0
