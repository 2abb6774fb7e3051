"""The workload without a server: what it would send, how it counts, what it drops."""

import argparse
import asyncio
import datetime
import io
import time
from collections import Counter

import httpx
import pytest

from erp import load
from erp.progress import Progress
from erp.schemas import Buchung
from erp.workload import MIXES, Call, Facts, Mix


def facts() -> Facts:
    """A small ERP's."""
    return Facts(["Saucen", "Aromen"], list(range(1, 21)), [101, 102, 103], [1, 2, 3])


def calls(name: str, number: int, seed: int = 1) -> list[Call]:
    """The first calls of a mix, each of which succeeds."""
    mix, found = Mix(name, facts(), seed), []
    for _ in range(number):
        found.append(mix.next())
        mix.succeeded(found[-1])
    return found


def test_the_normal_mix_has_every_endpoint_in_its_share() -> None:
    endpoints = Counter(call.endpoint for call in calls("normal", 10_000))
    assert sum(MIXES["normal"].values()) == 100
    assert len(endpoints) == len(MIXES["normal"])
    assert 2_700 < endpoints["GET /artikel"] < 3_300
    assert 600 < endpoints["POST /bewegungen"] < 1_000


def test_a_burst_is_one_endpoint() -> None:
    assert {call.endpoint for call in calls("burst", 100)} == {"GET /artikel"}
    assert {call.endpoint for call in calls("posting", 100)} == {"POST /bewegungen"}


def test_the_same_seed_asks_the_same() -> None:
    # Periods end now.
    first, again, other = ([call.path for call in calls("normal", 200, seed)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_what_is_posted_can_be_posted() -> None:
    """Valid bodies; nothing is taken out that was not put in before."""
    stock: Counter[tuple[int, int]] = Counter()
    for call in calls("posting", 2_000):
        posted = Buchung.model_validate(call.body)
        stock[posted.charge_id, posted.lager_id] += int(posted.menge if posted.art.incoming else -posted.menge)
        assert min(stock.values()) >= 0


def test_hot_articles_are_asked_for_more() -> None:
    details = Counter(call.path for call in calls("normal", 10_000) if call.endpoint.endswith("{artikel_id}"))
    assert details["/artikel/1"] > 5 * details["/artikel/20"] > 0


def test_reports_are_of_whole_months() -> None:
    months = {call.path[-7:] for call in calls("normal", 5_000) if "berichte" in call.path}
    this = f"{datetime.datetime.now(datetime.UTC):%Y-%m}"
    assert len(months) == 2
    assert max(months) < this


def run(handler: httpx.MockTransport, rate: float, seconds: float, concurrency: int = 10) -> load.Results:
    """Run a burst against an ERP that is a function."""

    async def running() -> load.Results:
        async with httpx.AsyncClient(transport=handler, base_url="http://erp") as client:
            progress = Progress("load", 1, "requests", out=io.StringIO())
            one = load.Load(client, Mix("burst", facts(), 1), concurrency, progress)
            await one.run(rate, seconds)
            return one.results

    return asyncio.run(running())


def test_latency_counts_from_when_a_request_was_due() -> None:
    """An ERP that stands still for 0.3 s: the requests that were due meanwhile waited, and it shows."""
    stalled = False

    async def stall(_: httpx.Request) -> httpx.Response:
        nonlocal stalled
        if not stalled:
            stalled = True
            time.sleep(0.3)  # noqa: ASYNC251 - nothing else may run: that is the stall
        return httpx.Response(200)

    figures = run(httpx.MockTransport(stall), rate=100, seconds=0.5).endpoints()["GET /artikel"]
    assert (figures["requests"], figures["errors"]) == (50, 0)
    # 30 of 50 were due during the stall, the median one of them for about 0.15 s less than the first.
    assert 0.29 < figures["max"] < 0.6
    assert figures["p50"] > 0.03


def test_what_is_too_much_is_dropped_and_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is answered: of 40 due requests 10 are under way, 30 are not even sent."""

    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(load, "_REQUEST_SECONDS", 0)
    figures = run(httpx.MockTransport(never), rate=400, seconds=0.1).endpoints()["GET /artikel"]
    assert figures["error_kinds"] == {"dropped": 30, "unfinished": 10}
    assert (figures["requests"], figures["errors"]) == (40, 40)


def test_unexpected_answers_are_errors() -> None:
    """By their status, or by the name of what went wrong."""
    answers = iter([200, 503, 404, 200, None])

    async def answer(request: httpx.Request) -> httpx.Response:
        status = next(answers)
        if status is None:
            raise httpx.ReadTimeout("late", request=request)
        return httpx.Response(status)

    figures = run(httpx.MockTransport(answer), rate=50, seconds=0.1).endpoints()["GET /artikel"]
    assert figures["requests"] == 5
    assert figures["error_kinds"] == {"status 503": 1, "status 404": 1, "ReadTimeout": 1}


@pytest.mark.parametrize(
    "arguments",
    ["--rate 0", "--rate 2001", "--rate nan", "--duration 86401", "--mix x", "--concurrency 0", "--concurrency 2001"],
)
def test_rate_and_time_are_bounded(arguments: str) -> None:
    parser = argparse.ArgumentParser()
    load.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--url", "http://erp", *arguments.split()])
