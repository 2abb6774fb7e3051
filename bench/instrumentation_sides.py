"""One side of `bench instrumentation`: a process that measures with one library, and works when it is told to.

It runs in the peers' environment, with erp_metrics on its path, and imports nothing else of ours. It reads from its
standard input how many operations to do, and answers with the CPU time of one in microseconds; at `check` with whether
its numbers show what it did, at `put off` with what one operation costs erp_metrics when its numbers are shown.
Libraries are used as their own pages say.
"""

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import psycopg_pool
from fastapi import FastAPI
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

QUERY = "/* name: lookup */ SELECT relname FROM pg_class WHERE oid = %s"
_OID = 1259
_NUMBERS = 2000
_ROUTES = 20
_WARM_UP = 10

Work = Callable[[int], Awaitable[None]]


def _application() -> FastAPI:
    """Twenty routes, of which one is asked, with many different numbers in its path."""
    app = FastAPI()

    async def article(artikel_id: int) -> int:
        return artikel_id

    for number in range(_ROUTES - 1):
        app.add_api_route(f"/stamm{number}/{{artikel_id}}", article)
    app.add_api_route("/artikel/{artikel_id}", article)
    return app


def _minimum_requests(app: FastAPI) -> None:
    """What one would write by hand: requests and their duration by route, and nothing else."""
    requests = Counter("hand_requests", "Requests.", ["endpoint", "method", "status"])
    durations = Histogram("hand_request_seconds", "Their duration.", ["endpoint"])
    children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    class Middleware:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self.app(scope, receive, send)
                return
            status, started = 500, time.perf_counter()

            async def sending(message: Any) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await self.app(scope, receive, sending)
            finally:
                route = scope.get("route")
                key = route.path if route else "none", scope["method"], status
                if key not in children:
                    children[key] = requests.labels(*key), durations.labels(key[0])
                children[key][0].inc()
                children[key][1].observe(time.perf_counter() - started)

    app.add_middleware(Middleware)


def _minimum_queries(_app: FastAPI) -> None:
    """What one would write by hand: queries and their duration by name."""
    counts = Counter("hand_queries", "Queries.", ["query_name"])
    durations = Histogram("hand_query_seconds", "Their duration.", ["query_name"])
    children: dict[Any, tuple[Any, Any]] = {}

    def count(query: Any, seconds: float) -> None:
        found = children.get(query)
        if found is None:
            name = query.removeprefix("/* name: ").partition(" ")[0]
            found = children[query] = counts.labels(name), durations.labels(name)
        found[0].inc()
        found[1].observe(seconds)

    plain, plain_async = psycopg.Cursor.execute, psycopg.AsyncCursor.execute

    def execute(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return plain(self, query, *args, **kwargs)
        finally:
            count(query, time.perf_counter() - started)

    async def execute_async(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return await plain_async(self, query, *args, **kwargs)
        finally:
            count(query, time.perf_counter() - started)

    psycopg.Cursor.execute = execute  # type: ignore[method-assign]
    psycopg.AsyncCursor.execute = execute_async  # type: ignore[method-assign]


def _clock(_app: FastAPI) -> None:
    """Read the clock before and after, and do nothing with it: whoever measures queries in Python pays this."""
    plain, plain_async = psycopg.Cursor.execute, psycopg.AsyncCursor.execute

    def execute(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return plain(self, query, *args, **kwargs)
        finally:
            time.perf_counter() - started

    async def execute_async(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return await plain_async(self, query, *args, **kwargs)
        finally:
            time.perf_counter() - started

    psycopg.Cursor.execute = execute  # type: ignore[method-assign]
    psycopg.AsyncCursor.execute = execute_async  # type: ignore[method-assign]


def _erp_metrics(app: FastAPI) -> None:
    importlib.import_module("erp_metrics").instrument(app)


def _starlette_exporter(app: FastAPI) -> None:
    app.add_middleware(importlib.import_module("starlette_exporter").PrometheusMiddleware)


def _instrumentator(app: FastAPI) -> None:
    importlib.import_module("prometheus_fastapi_instrumentator").Instrumentator().instrument(app)


def _opentelemetry(app: FastAPI) -> None:
    """Metrics of requests; without a tracer provider its spans are not recorded."""
    reader = importlib.import_module("opentelemetry.exporter.prometheus").PrometheusMetricReader()
    provider = importlib.import_module("opentelemetry.sdk.metrics").MeterProvider(metric_readers=[reader])
    instrumentor = importlib.import_module("opentelemetry.instrumentation.fastapi").FastAPIInstrumentor
    instrumentor.instrument_app(app, meter_provider=provider)


def _opentelemetry_spans(_app: FastAPI) -> None:
    """Spans of queries, which go nowhere: it has no metrics of them."""
    provider = importlib.import_module("opentelemetry.sdk.trace").TracerProvider()
    instrumentor = importlib.import_module("opentelemetry.instrumentation.psycopg").PsycopgInstrumentor
    instrumentor().instrument(tracer_provider=provider)


def _nothing(_app: FastAPI) -> None:
    pass


REQUEST_SIDES: dict[str, Callable[[FastAPI], None]] = {
    "plain": _nothing,
    "erp_metrics": _erp_metrics,
    "by hand": _minimum_requests,
    "starlette_exporter": _starlette_exporter,
    "instrumentator": _instrumentator,
    "opentelemetry": _opentelemetry,
}
QUERY_SIDES: dict[str, Callable[[FastAPI], None]] = {
    "plain": _nothing,
    "clock": _clock,
    "erp_metrics": _erp_metrics,
    "by hand": _minimum_queries,
    "opentelemetry": _opentelemetry_spans,
}
# Those that sum up several processes.
MULTIPROCESS = ("erp_metrics", "by hand", "starlette_exporter", "instrumentator")


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


async def _send(message: Any) -> None:
    if message["type"] == "http.response.start" and message["status"] != 200:
        raise RuntimeError(f"the application answers {message['status']}")


def _requests(app: FastAPI, first: str) -> Work:
    paths = [f"/{first}/{number}" for number in range(_NUMBERS)]

    async def work(operations: int) -> None:
        for number in range(operations):
            path = paths[number % _NUMBERS]
            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "GET",
                "path": path,
                "raw_path": path.encode(),
                "root_path": "",
                "scheme": "http",
                "query_string": b"",
                "headers": [],
            }
            await app(scope, _receive, _send)

    return work


def _queries(dsn: str) -> Work:
    connection = psycopg.connect(dsn, autocommit=True)

    async def work(operations: int) -> None:
        for _ in range(operations):
            connection.execute(QUERY, (_OID,))

    return work


async def _asyncio_queries(dsn: str) -> Work:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)

    async def work(operations: int) -> None:
        for _ in range(operations):
            await connection.execute(QUERY, (_OID,))

    return work


async def _pooled_requests(app: FastAPI, dsn: str) -> Work:
    pool = psycopg_pool.AsyncConnectionPool(dsn, kwargs={"autocommit": True}, min_size=1, open=False)
    await pool.open()

    @app.get("/lookup/{oid}")
    async def lookup(oid: int) -> str:
        async with pool.connection() as connection:
            await connection.execute(QUERY, (_OID,))
            return str(oid)

    return _requests(app, "lookup")


def _shows() -> bool:
    """Tell whether the numbers are there, as a scrape would see them."""
    registry: CollectorRegistry = REGISTRY
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    text = generate_latest(registry).decode()
    wanted = ('"/artikel/{artikel_id}"', '"/lookup/{oid}"', '"lookup"')
    lines = [line for line in text.splitlines() if any(one in line for one in wanted)]
    return any(float(line.rpartition(" ")[2]) > 0 for line in lines if not line.startswith("#"))


async def _main(kind: str, side: str, dsn: str) -> None:
    app = _application()
    (REQUEST_SIDES if "request" in kind else QUERY_SIDES)[side](app)
    works: dict[str, Callable[[], Awaitable[Work]]] = {
        "request": lambda: _done(_requests(app, "artikel")),
        "query": lambda: _done(_queries(dsn)),
        "asyncio query": lambda: _asyncio_queries(dsn),
        "request with one query": lambda: _pooled_requests(app, dsn),
    }
    work = await works[kind]()
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        if line.strip() == "check":
            print(_shows(), flush=True)  # noqa: T201
            continue
        if line.strip() == "put off":
            count_all = importlib.import_module("erp_metrics.journal").count_all
            # What earlier turns put off is not these operations'.
            count_all()
            await work(_NUMBERS)
            begun = time.process_time()
            count_all()
            print((time.process_time() - begun) / _NUMBERS * 1e6, flush=True)  # noqa: T201
            continue
        operations = int(line)
        # The caches are somebody else's by now.
        await work(_WARM_UP)
        begun = time.process_time()
        await work(operations)
        print((time.process_time() - begun) / operations * 1e6, flush=True)  # noqa: T201


async def _done(work: Work) -> Work:
    return work


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
