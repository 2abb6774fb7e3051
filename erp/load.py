"""`erp load`: requests at a fixed rate, whether the ERP keeps up or not; latencies count from when each was due."""

import argparse
import asyncio
import contextlib
import json
import netrc
import signal
import ssl
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import httpx

from erp import ErpError
from erp.latencies import Latencies
from erp.progress import Progress
from erp.workload import MIXES, Call, Mix, discover

_MAX_RATE, _MAX_SECONDS, _MAX_UNDER_WAY = 2000.0, 86_400.0, 2000
_REQUEST_SECONDS = 60
_START_SECONDS = 60
_END_SECONDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--url", required=True, help="the ERP, such as http://127.0.0.1:8000")
    parser.add_argument("--cacert", metavar="FILE", help="the authority of an ERP's own certificate (PEM)")
    parser.add_argument("--netrc-file", metavar="FILE", help="login and password by host, where one has to log in")
    parser.add_argument("--rate", type=_number(_MAX_RATE), default=5.0, help="requests per second (5)")
    parser.add_argument("--duration", type=_number(_MAX_SECONDS), default=60.0, help="seconds (60)")
    parser.add_argument(
        "--mix", choices=sorted(MIXES), default="normal", help="burst: one endpoint only; posting: writes"
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        choices=range(1, _MAX_UNDER_WAY + 1),
        default=200,
        metavar="N",
        help="more requests than these under way at once are dropped, which is an error (200)",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _number(highest: float) -> Any:
    def number(text: str) -> float:
        value = float(text)
        if not 0 < value <= highest:
            raise argparse.ArgumentTypeError(f"must be above 0 and at most {highest:g}, not {text}")
        return value

    return number


@dataclass
class Results:
    """What came of the requests, by endpoint; what was dropped or failed is an error."""

    latencies: defaultdict[str, Latencies] = field(default_factory=lambda: defaultdict(Latencies))
    errors: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: float = 0.0

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """Return each endpoint's figures; latencies are those of answered requests, in seconds."""
        return {
            name: {
                "requests": self.latencies[name].count + self.errors[name]["dropped"],
                "errors": self.errors[name].total(),
                **self.latencies[name].summary(),
                "error_kinds": dict(self.errors[name]),
            }
            for name in sorted({*self.latencies, *self.errors})
        }


class Load:
    """An open loop of requests with a bound on those under way."""

    def __init__(self, client: httpx.AsyncClient, mix: Mix, concurrency: int, progress: Progress) -> None:
        """Take the client, the calls to make, how many may be under way, and what shows the progress."""
        self._client = client
        self._mix = mix
        self._concurrency = concurrency
        self._progress = progress
        self._under_way: set[asyncio.Task[None]] = set()
        self.results = Results()
        self.stopped = asyncio.Event()

    async def run(self, rate: float, seconds: float) -> None:
        """Send `rate` requests per second for so many seconds, or until stopped, and wait for the answers."""
        begun = time.monotonic()
        for number in range(round(rate * seconds)):
            due = begun + number / rate
            await self._wait_until(due)
            if self.stopped.is_set():
                break
            self._send(self._mix.next(), due)
        if self._under_way:
            patience = _END_SECONDS if self.stopped.is_set() else _REQUEST_SECONDS
            _, late = await asyncio.wait(self._under_way, timeout=patience)
            for task in late:
                task.cancel()
        self.results.seconds = time.monotonic() - begun

    async def _wait_until(self, due: float) -> None:
        delay = due - time.monotonic()
        if delay <= 0:
            # Late: give the requests under way their turn all the same.
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self.stopped.wait()

    def _send(self, call: Call, due: float) -> None:
        self._progress.add(1)
        if len(self._under_way) >= self._concurrency:
            self.results.errors[call.endpoint]["dropped"] += 1
            return
        task = asyncio.create_task(self._one(call, due))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _one(self, call: Call, due: float) -> None:
        error = "unfinished"
        try:
            method = call.endpoint.partition(" ")[0]
            answer = await self._client.request(method, call.path, params=call.parameters, json=call.body)
            error = "" if answer.status_code in call.expected else f"status {answer.status_code}"
        except httpx.HTTPError as fault:
            error = type(fault).__name__
        finally:
            self.results.latencies[call.endpoint].add(time.monotonic() - due)
            if error:
                self.results.errors[call.endpoint][error] += 1
            else:
                self._mix.succeeded(call)


def run(options: argparse.Namespace) -> int:
    """Load the ERP and report; 1 when no request succeeded. Raises ErpError when the ERP cannot be asked at all."""
    try:
        results = asyncio.run(_run(options))
    except (OSError, netrc.NetrcParseError) as error:
        raise ErpError(f"--cacert or --netrc-file: {error}") from error
    except httpx.HTTPError as error:
        raise ErpError(f"{options.url}: {str(error) or type(error).__name__}") from error
    endpoints = results.endpoints()
    total = {key: sum(one[key] for one in endpoints.values()) for key in ("requests", "errors")}
    if options.json:
        head = {"url": options.url, "mix": options.mix, "rate": options.rate, "seconds": round(results.seconds, 3)}
        print(json.dumps(head | total | {"endpoints": endpoints}))  # noqa: T201
    else:
        _print(endpoints, total)
    return 0 if total["errors"] < total["requests"] else 1


async def _run(options: argparse.Namespace) -> Results:
    limits = httpx.Limits(max_connections=options.concurrency, max_keepalive_connections=options.concurrency)
    timeout = httpx.Timeout(_REQUEST_SECONDS)
    login = httpx.NetRCAuth(options.netrc_file) if options.netrc_file else None
    trusted = ssl.create_default_context(cafile=options.cacert)
    async with httpx.AsyncClient(
        base_url=options.url, auth=login, verify=trusted, limits=limits, timeout=timeout, trust_env=False
    ) as client:
        await _wait_for(client)
        mix = Mix(options.mix, await discover(client), options.seed)
        progress = Progress("load", round(options.rate * options.duration), "requests", line_seconds=60)
        load = Load(client, mix, options.concurrency, progress)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, load.stopped.set)
        await load.run(options.rate, options.duration)
        progress.end()
    return load.results


async def _wait_for(client: httpx.AsyncClient) -> None:
    """Wait until the ERP is well: it may have been started a moment ago. Raises ErpError, saying why it is not."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            answer = await client.get("/healthz")
            trouble = "" if answer.is_success else f"/healthz says {answer.status_code}: {answer.text[:200]}"
        except httpx.TransportError as error:
            trouble = str(error) or type(error).__name__
        if not trouble:
            return
        if time.monotonic() > deadline:
            raise ErpError(f"{client.base_url} is not well after {_START_SECONDS} s: {trouble}")
        await asyncio.sleep(0.2)


def _print(endpoints: dict[str, dict[str, Any]], total: dict[str, int]) -> None:
    print(f"{'endpoint':40} {'requests':>9} {'errors':>7}      p50      p95      p99      max")  # noqa: T201
    for name, one in endpoints.items():
        times = "".join(f"{one[key] * 1000:6.0f} ms" for key in ("p50", "p95", "p99", "max"))
        print(f"{name:40} {one['requests']:9,} {one['errors']:7,}{times}")  # noqa: T201
    for name, one in endpoints.items():
        for kind, number in one["error_kinds"].items():
            print(f"{name}: {number:,} times {kind}", file=sys.stderr)  # noqa: T201
    print(f"{total['requests']:,} requests, {total['errors']:,} errors")  # noqa: T201
