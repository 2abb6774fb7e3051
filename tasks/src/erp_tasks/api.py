"""HTTP API: starts tasks, tells how they stand, streams their progress, and serves one page for people."""

import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import redis.asyncio as redis
import uvicorn
from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import Counter, Gauge, start_http_server
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from erp_tasks import events, submit
from erp_tasks.app import settings
from erp_tasks.job import FINAL, Snapshot

_STATIC = Path(__file__).parent / "static"
_MAX_STREAMS = 200
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

STREAMS = Gauge("erp_tasks_event_streams", "Browsers that follow a job's progress now.")
REQUESTS = Counter(
    "erp_tasks_http_requests", "Requests to the API, by route template.", ["endpoint", "method", "status"]
)


class Monatsbericht(BaseModel):
    """What the monthly report needs."""

    model_config = ConfigDict(extra="forbid")

    monat: str = Field(pattern=r"^[1-9]\d{3}-(0[1-9]|1[0-2])$", examples=["2026-10"])


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.redis = redis.Redis.from_url(
        settings.results,
        decode_responses=True,
        socket_connect_timeout=5,
        # Longer than a stream waits for its next event.
        socket_timeout=20,
        # What is sent over a connection that Redis' restart has broken is sent once more over a new one.
        retry=Retry(NoBackoff(), 1),
        max_connections=_MAX_STREAMS + 50,
    )
    yield
    await app.state.redis.aclose()


api = FastAPI(title="ERP tasks", lifespan=_lifespan, docs_url=None, redoc_url=None)
api.mount("/static", StaticFiles(directory=_STATIC), name="static")


@api.middleware("http")
async def _count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    route = request.scope.get("route")
    endpoint = getattr(route, "path", "unmatched") if route else "unmatched"
    REQUESTS.labels(endpoint, request.method, response.status_code).inc()
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@api.exception_handler(RedisError)
async def _unavailable(_request: Request, _error: Exception) -> JSONResponse:
    detail = "The task queue does not answer; try again in a moment."
    return JSONResponse({"detail": detail}, 503, headers={"Retry-After": "5"})


@api.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page for people."""
    return FileResponse(_STATIC / "index.html")


@api.get("/healthz")
async def healthz(request: Request) -> dict[str, str]:
    """Say that API and Redis answer."""
    await request.app.state.redis.ping()
    return {"status": "ok"}


@api.post("/tasks/reports/monatsbericht", status_code=202)
async def start_monatsbericht(
    body: Monatsbericht,
    request: Request,
    response: Response,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> dict[str, str]:
    """Start the monthly report; the same Idempotency-Key within a day gives the job that it gave before."""
    arguments = body.model_dump()
    fingerprint = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
    try:
        job_id = await submit.submit(
            request.app.state.redis,
            "backend.tasks.reports.monatsbericht",
            arguments,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )
    except submit.KeyReusedError as error:
        raise HTTPException(422, str(error)) from error
    response.headers["Location"] = f"/tasks/{job_id}"
    return {"id": job_id, "status_url": f"/tasks/{job_id}", "events_url": f"/tasks/{job_id}/events"}


@api.get("/tasks/{job_id}")
async def status(job_id: uuid.UUID, request: Request) -> dict[str, Any]:
    """Return a job's state and progress, and its result once it has succeeded."""
    fields, last_id = await events.snapshot(request.app.state.redis, str(job_id))
    if not fields:
        raise HTTPException(404, "There is no such job (finished ones are kept for a week).")
    result = fields.get("result")
    return {
        "id": str(job_id),
        **Snapshot.of(fields).shown(),
        "result": json.loads(result) if result else None,
        "last_event_id": last_id,
    }


@api.get("/tasks/{job_id}/events")
async def follow(
    job_id: uuid.UUID, request: Request, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    """Stream a job's progress; a browser that comes back goes on where it was."""
    client = request.app.state.redis
    fields, newest = await events.snapshot(client, str(job_id))
    if not fields:
        raise HTTPException(404, "There is no such job (finished ones are kept for a week).")
    if fields.get("state") in FINAL and last_event_id == newest:
        # The one answer after which a browser does not connect again.
        return Response(status_code=204)
    if STREAMS._value.get() >= _MAX_STREAMS:  # noqa: SLF001  a gauge has no public reader
        raise HTTPException(503, "Too many people are watching; try again later.", {"Retry-After": "30"})
    return StreamingResponse(
        _counted(events.follow(client, str(job_id), last_event_id)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _counted(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    with STREAMS.track_inprogress():
        try:
            async for chunk in chunks:
                yield chunk
        except RedisError:
            # The browser comes back by itself, with the last id that it has seen.
            return


def main() -> None:
    """Serve until told to stop; open event streams do not hold up a stop."""
    start_http_server(settings.metrics_port, addr=settings.listen)
    uvicorn.run(
        api,
        host=settings.listen,
        port=settings.port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
