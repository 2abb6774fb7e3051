"""What erp_metrics costs: the shortest queries and requests, with it and without, in turns within one run."""

import argparse
import asyncio
import contextlib
import importlib.metadata
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import psycopg_pool
from fastapi import FastAPI

import erp_metrics
from bench.report import Target, as_json
from bench.throwaway import postgres
from erp_metrics import setup

_PACKAGES = ("psycopg", "psycopg-pool", "fastapi", "prometheus-client")
_QUERY = "/* name: lookup */ SELECT relname FROM pg_class WHERE oid = %s"
_PARAMETERS = (1259,)
_SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "path": "/lookup/1259",
    "raw_path": b"/lookup/1259",
    "root_path": "",
    "scheme": "http",
    "query_string": b"",
    "headers": [],
}
# A request that does nothing but look one row up is the worst case: what erp_metrics adds is the same for all requests.
_RATIO_BOUND = 1.20
_QUERY_MICROSECONDS_BOUND = 25.0

Block = Callable[[bool, int], Awaitable[None]]


@dataclass(frozen=True)
class Figures:
    """Microseconds per operation, and a ratio: medians over the rounds, in which both sides met the same conditions."""

    plain: float
    measured: float
    added: float
    ratio: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="bench erp_metrics", description=__doc__)
    parser.add_argument("--dsn", help="a PostgreSQL to ask (default: one of its own, thrown away afterwards)")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each side (40)")
    parser.add_argument("--operations", type=int, default=400, help="operations per turn (400)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    with contextlib.nullcontext(options.dsn) if options.dsn else postgres() as dsn:
        found = asyncio.run(_measure(dsn, options.rounds, options.operations))
    query, request = found["asyncio query"], found["request with one query"]
    targets = [
        Target("time with, against without, of the shortest request", round(request.ratio, 3), _RATIO_BOUND),
        Target("µs added to a query", query.added, _QUERY_MICROSECONDS_BOUND),
    ]
    if options.json:
        print(as_json(_versions(), {name: vars(one) for name, one in found.items()}, targets))  # noqa: T201
    else:
        _print(found, targets)
    return 0 if all(target.ok for target in targets) else 1


async def _measure(dsn: str, rounds: int, operations: int) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    pool = psycopg_pool.AsyncConnectionPool(dsn, kwargs={"autocommit": True}, min_size=1, open=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as asynchronous, pool:
            plain, measured = _application(pool), _application(pool)
            erp_metrics.instrument(measured, queries=["lookup"])

            async def query(_with_metrics: bool, number: int) -> None:
                for _ in range(number):
                    connection.execute(_QUERY, _PARAMETERS)

            async def asyncio_query(_with_metrics: bool, number: int) -> None:
                for _ in range(number):
                    await asynchronous.execute(_QUERY, _PARAMETERS)

            async def request(with_metrics: bool, number: int) -> None:
                app = measured if with_metrics else plain
                for _ in range(number):
                    await app(dict(_SCOPE), _receive, _send)

            blocks: dict[str, Block] = {
                "query": query,
                "asyncio query": asyncio_query,
                "request with one query": request,
            }
            for name, block in blocks.items():
                found[name] = await _compare(block, rounds, operations)
    setup.remove()
    return found


def _application(pool: psycopg_pool.AsyncConnectionPool) -> FastAPI:
    app = FastAPI()

    @app.get("/lookup/{oid}")
    async def lookup(oid: int) -> str:
        async with pool.connection() as connection:
            row = await (await connection.execute(_QUERY, (oid,))).fetchone()
            return str(row and row[0])

    return app


async def _compare(block: Block, rounds: int, operations: int) -> Figures:
    """Take turns, so that what else the machine does hits both sides alike.

    Each turn warms up first: patching a class makes Python forget what it has learned of it.
    """
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        # Who goes first changes, too.
        for with_metrics in (number % 2 == 0, number % 2 == 1):
            setup.remove()
            if with_metrics:
                erp_metrics.instrument(None, queries=["lookup"])
            await block(with_metrics, operations // 4)
            begun = time.perf_counter()
            await block(with_metrics, operations)
            times[with_metrics].append((time.perf_counter() - begun) / operations * 1e6)
    plain, measured = times[False], times[True]
    pairs = list(zip(measured, plain, strict=True))
    return Figures(
        plain=round(statistics.median(plain), 1),
        measured=round(statistics.median(measured), 1),
        added=round(statistics.median(one - other for one, other in pairs), 1),
        ratio=round(statistics.median(one / other for one, other in pairs), 4),
    )


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


async def _send(message: Any) -> None:
    if message["type"] == "http.response.start" and message["status"] != 200:
        raise RuntimeError(f"the application answers {message['status']}")


def _versions() -> dict[str, str]:
    return {"psycopg_impl": psycopg.pq.__impl__, **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def _print(found: dict[str, Figures], targets: list[Target]) -> None:
    print(f"{'':24} {'without':>10} {'with':>10} {'added':>10} {'ratio':>7}")  # noqa: T201
    for name, one in found.items():
        print(f"{name:24} {one.plain:7.1f} µs {one.measured:7.1f} µs {one.added:7.1f} µs {one.ratio:7.3f}")  # noqa: T201
    print(*targets, sep="\n")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
