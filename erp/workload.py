"""What people do with the ERP: mixes of requests, made from what the ERP itself says it has."""

import datetime
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import httpx

from erp import ErpError

_ARTICLES_PER_CATEGORY = 20
_ARTICLES_WITH_CHARGES = 24


@dataclass(frozen=True)
class Call:
    """A request and the statuses that are no error; `endpoint` is its method and route template."""

    endpoint: str
    path: str
    parameters: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    expected: tuple[int, ...] = (200,)


@dataclass
class Facts:
    """What there is to ask for; articles in the order in which they are asked for most."""

    categories: list[str]
    articles: list[int]
    charges: list[int]
    stores: list[int]
    # What this workload has posted itself and may take out again: charge and store.
    received: list[tuple[int, int]] = field(default_factory=list)

    def article(self, rng: random.Random) -> int:
        """Return an article, a hot one more often than not."""
        weights = list(accumulate(1 / rank for rank in range(1, len(self.articles) + 1)))
        return rng.choices(self.articles, cum_weights=weights)[0]


async def discover(client: httpx.AsyncClient) -> Facts:
    """Ask the ERP what it has. Raises ErpError where it has nothing, httpx.HTTPError where it does not answer."""

    async def ask(path: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = await client.get(path, params=parameters)
        return list(answer.raise_for_status().json())

    categories = [row["kategorie"] for row in await ask("/kategorien")]
    found = [await ask("/artikel", kategorie=name, limit=_ARTICLES_PER_CATEGORY) for name in categories]
    # One of each category in turn, so that the hot ones are of all kinds.
    articles = [rows[rank]["id"] for rank in range(_ARTICLES_PER_CATEGORY) for rows in found if rank < len(rows)]
    charges: list[int] = []
    for article in articles[:_ARTICLES_WITH_CHARGES]:
        listed = await ask(f"/artikel/{article}/chargen")
        charges += [row["id"] for row in listed if row["status"] != "gesperrt"]
    stores = [row["id"] for row in await ask("/lager")]
    if not (articles and charges and stores):
        raise ErpError("the ERP has no data; fill it with `python3 -m erp generate`")
    return Facts(categories, articles, charges, stores)


def _search(rng: random.Random, facts: Facts) -> Call:
    text = rng.choice(("", "", "Bio", "Sack", "fein", "Export", "Kanister"))
    parameters = {"kategorie": rng.choice(facts.categories), "suche": text}
    return Call("GET /artikel", "/artikel", parameters)


def _detail(rng: random.Random, facts: Facts) -> Call:
    return Call("GET /artikel/{artikel_id}", f"/artikel/{facts.article(rng)}")


def _stock(rng: random.Random, facts: Facts) -> Call:
    return Call("GET /artikel/{artikel_id}/bestand", f"/artikel/{facts.article(rng)}/bestand")


def _charges(rng: random.Random, facts: Facts) -> Call:
    return Call("GET /artikel/{artikel_id}/chargen", f"/artikel/{facts.article(rng)}/chargen")


def _trace(rng: random.Random, facts: Facts) -> Call:
    return Call("GET /chargen/{charge_id}/verfolgung", f"/chargen/{rng.choice(facts.charges)}/verfolgung")


def _period(rng: random.Random, _: Facts) -> Call:
    now = datetime.datetime.now(datetime.UTC)
    begin = now - datetime.timedelta(days=rng.choice((1, 1, 7, 30)))
    return Call("GET /bewegungen", "/bewegungen", {"von": begin.isoformat(), "bis": now.isoformat()})


def _post(rng: random.Random, facts: Facts) -> Call:
    """Post a receipt, or take a little of one that was posted: then there is enough of it."""
    if facts.received and rng.random() < 0.5:
        charge, store = facts.received.pop(rng.randrange(len(facts.received)))
        body = {"charge_id": charge, "lager_id": store, "art": "Verkauf", "menge": "1"}
    else:
        charge, store = rng.choice(facts.charges), rng.choice(facts.stores)
        body = {"charge_id": charge, "lager_id": store, "art": "Wareneingang", "menge": str(rng.randint(2, 50))}
    return Call("POST /bewegungen", "/bewegungen", body=body, expected=(201,))


def _report(rng: random.Random, _: Facts) -> Call:
    last = datetime.datetime.now(datetime.UTC).date().replace(day=1) - datetime.timedelta(days=1)
    month = rng.choice((last, last.replace(day=1) - datetime.timedelta(days=1)))
    return Call("GET /berichte/monat/{monat}", f"/berichte/monat/{month:%Y-%m}")


def _categories(_: random.Random, __: Facts) -> Call:
    return Call("GET /kategorien", "/kategorien")


Make = Callable[[random.Random, Facts], Call]

# Weights in per cent. `burst` is a page that asks far too often.
MIXES: dict[str, dict[Make, int]] = {
    "normal": {
        _search: 30,
        _detail: 20,
        _stock: 12,
        _charges: 10,
        _trace: 10,
        _post: 8,
        _period: 5,
        _categories: 3,
        _report: 2,
    },
    "burst": {_search: 100},
    "posting": {_post: 100},
}


class Mix:
    """An endless sequence of calls, the same for the same seed and facts."""

    def __init__(self, name: str, facts: Facts, seed: int) -> None:
        """Take a mix of MIXES."""
        self._facts = facts
        self._rng = random.Random(f"load {seed}")  # noqa: S311 - traffic, no secrets
        self._makers = list(MIXES[name])
        self._weights = list(accumulate(MIXES[name].values()))

    def next(self) -> Call:
        """Return the next call."""
        make = self._rng.choices(self._makers, cum_weights=self._weights)[0]
        return make(self._rng, self._facts)

    def succeeded(self, call: Call) -> None:
        """Note what a posted receipt lets be taken out later."""
        if call.body and call.body["art"] == "Wareneingang":
            self._facts.received.append((call.body["charge_id"], call.body["lager_id"]))
            # Enough to choose from; a day's posting must not fill the memory.
            del self._facts.received[:-1000]
