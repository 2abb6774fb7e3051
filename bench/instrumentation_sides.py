"""A process of `bench instrumentation`: the same work without any library and with each, in turns.

It runs in the peers' environment, with erp_metrics on its path, and imports nothing else of ours. It prints one JSON
object: of every side the CPU time of one operation in microseconds, turn by turn. Libraries are used as their own pages
say.
"""

import asyncio
import functools
import gc
import importlib
import itertools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import psycopg
import psycopg_pool
from fastapi import FastAPI
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

QUERY = "/* name: lookup */ SELECT relname FROM pg_class WHERE oid = %s"
_OID = 1259
_NUMBERS = 2048
_ROUTES = 20
_TURN = 256
# Before each turn, the interpreter has to see what it calls now a few dozen times.
_WARM_UP = 128

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

    def execute(self: Any, query: Any, params: Any = None, *, prepare: Any = None, binary: Any = None) -> Any:
        started = time.perf_counter()
        result = plain(self, query, params, prepare=prepare, binary=binary)
        time.perf_counter() - started
        return result

    async def execute_async(
        self: Any, query: Any, params: Any = None, *, prepare: Any = None, binary: Any = None
    ) -> Any:
        started = time.perf_counter()
        result = await plain_async(self, query, params, prepare=prepare, binary=binary)
        time.perf_counter() - started
        return result

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


_Install = Callable[[FastAPI], None]
_PLAIN: dict[str, _Install] = {"plain": _nothing, "plain again": _nothing}
_REQUESTS: dict[str, _Install] = {
    **_PLAIN,
    "erp_metrics": _erp_metrics,
    "by hand": _minimum_requests,
    "starlette_exporter": _starlette_exporter,
    "instrumentator": _instrumentator,
    "opentelemetry": _opentelemetry,
}
_QUERIES: dict[str, _Install] = {
    **_PLAIN,
    "clock": _clock,
    "erp_metrics": _erp_metrics,
    "by hand": _minimum_queries,
    "opentelemetry": _opentelemetry_spans,
}
# Those that do not sum up several processes.
_ALONE = ("clock", "opentelemetry")
# A library's counters of requests and of queries.
_COUNTERS = {
    "erp_metrics": ("erp_http_requests_total{", "erp_db_query_count_total{"),
    "by hand": ("hand_requests_total{", "hand_queries_total{"),
    "starlette_exporter": ("starlette_requests_total{",),
    "instrumentator": ("http_requests_total{",),
}


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


async def _send(message: Any) -> None:
    if message["type"] == "http.response.start" and message["status"] != 200:
        raise RuntimeError(f"the application answers {message['status']}")


def _ask(app: FastAPI, first: str) -> Work:
    paths = itertools.cycle([f"/{first}/{number}" for number in range(_NUMBERS)])

    async def work(operations: int) -> None:
        for path in itertools.islice(paths, operations):
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


async def _requests(app: FastAPI, _dsn: str) -> Work:
    return _ask(app, "artikel")


async def _queries(_app: FastAPI, dsn: str) -> Work:
    connection = psycopg.connect(dsn, autocommit=True)

    async def work(operations: int) -> None:
        for _ in range(operations):
            connection.execute(QUERY, (_OID,))

    return work


async def _asyncio_queries(_app: FastAPI, dsn: str) -> Work:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)

    async def work(operations: int) -> None:
        for _ in range(operations):
            await connection.execute(QUERY, (_OID,))

    return work


@functools.cache
def _pool(dsn: str) -> psycopg_pool.AsyncConnectionPool:
    return psycopg_pool.AsyncConnectionPool(dsn, kwargs={"autocommit": True}, min_size=1, open=False)


async def _pooled_requests(app: FastAPI, dsn: str) -> Work:
    pool = _pool(dsn)
    await pool.open()

    @app.get("/lookup/{oid}")
    async def lookup(oid: int) -> str:
        async with pool.connection() as connection:
            await connection.execute(QUERY, (_OID,))
            return str(oid)

    return _ask(app, "lookup")


class Kind(NamedTuple):
    """A kind of work: what it is measured with, how it is done, and a label that only its own numbers have.

    Work of an application is done by one that each side has for itself.
    """

    sides: dict[str, _Install]
    work: Callable[[FastAPI, str], Awaitable[Work]]
    label: str
    of_application: bool


KINDS = {
    "request": Kind(_REQUESTS, _requests, "/artikel/{artikel_id}", of_application=True),
    "query": Kind(_QUERIES, _queries, "lookup", of_application=False),
    "asyncio query": Kind(_QUERIES, _asyncio_queries, "lookup", of_application=False),
    "request with one query": Kind(
        {**_PLAIN, "erp_metrics": _erp_metrics}, _pooled_requests, "/lookup/{oid}", of_application=True
    ),
}


# An attribute of a class or module, and what it is.
_Patched = dict[tuple[Any, str], Any]


class _Patches:
    """What libraries replace in psycopg, so that it can be put in for a turn and taken out again."""

    def __init__(self) -> None:
        modules = psycopg, psycopg_pool
        classes = {one for module in modules for one in vars(module).values() if isinstance(one, type)}
        self._owners = [*modules, *{base for one in classes for base in one.__mro__ if "psycopg" in base.__module__}]
        self._original = self._all()

    def made(self) -> _Patched:
        """Return what is another than it was."""
        return {place: value for place, value in self._all().items() if value is not self._original.get(place)}

    def put(self, patches: _Patched) -> None:
        """Have these in place, and no others. Raises KeyError where one has no original."""
        for place in self.made():
            setattr(*place, self._original[place])
        for place, value in patches.items():
            setattr(*place, value)

    def _all(self) -> _Patched:
        return {(owner, name): value for owner in self._owners for name, value in vars(owner).items()}


def _counted(side: str, label: str) -> float:
    """Return how many operations a library's own counters tell, as a scrape would see them."""
    registry: CollectorRegistry = REGISTRY
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    lines = generate_latest(registry).decode().splitlines()
    found = [line for line in lines if line.startswith(_COUNTERS[side]) and f'"{label}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in found)


async def _main(kind: Kind, dsn: str, rounds: int) -> dict[str, list[float]]:
    several = "PROMETHEUS_MULTIPROC_DIR" in os.environ
    patches, works = _Patches(), {}
    # One connection for all that do not connect by themselves: each has another server process, and is a little quicker
    # or slower for good.
    shared = None if kind.of_application else await kind.work(_application(), dsn)
    for name, install in kind.sides.items():
        if several and name in _ALONE:
            continue
        app = _application()
        install(app)
        own = patches.made()
        connects = any(attribute == "connect" for _, attribute in own)
        works[name] = await kind.work(app, dsn) if shared is None or connects else shared, own
        patches.put({})
    journal = importlib.import_module("erp_metrics.journal")
    if _TURN % journal.BATCH:
        raise RuntimeError(f"a turn of {_TURN} is not made of batches of {journal.BATCH}")
    times: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    gc.freeze()
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            work, own = works[name]
            patches.put(own)
            await work(_WARM_UP)
            # Nobody has to clear away, or to count, what others did.
            journal.count_all()
            gc.collect()
            begun = time.process_time()
            await work(_TURN)
            times[name].append((time.process_time() - begun) / _TURN * 1e6)
    journal.count_all()
    for name in _COUNTERS.keys() & works.keys():
        done, counted = rounds * (_WARM_UP + _TURN), _counted(name, kind.label)
        if counted != done:
            raise RuntimeError(f"{name} counted {counted} of {done} operations")
    later = await _put_off(*works["erp_metrics"], patches, journal.count_all)
    times["erp_metrics"] = [one + later for one in times["erp_metrics"]]
    return times


async def _put_off(work: Work, own: _Patched, patches: _Patches, count_all: Callable[[], None]) -> float:
    """Return the µs that an operation costs erp_metrics when its numbers are shown after some thousand of them."""
    patches.put(own)
    times = []
    for _ in range(10):
        await work(_NUMBERS)
        begun = time.process_time()
        count_all()
        times.append((time.process_time() - begun) / _NUMBERS * 1e6)
    return statistics.median(times)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(KINDS[sys.argv[1]], sys.argv[2], int(sys.argv[3])))))  # noqa: T201
