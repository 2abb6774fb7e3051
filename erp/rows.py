"""The plan's rows as PostgreSQL's COPY reads them, in blocks: text with tabs, `\\N` for NULL."""

import random
from collections.abc import Iterable, Iterator

from erp.calendar_days import times_of_day
from erp.catalogue import COUNTRIES, PACKS, STORES, TOWNS, TRADES, VARIANTS, Category
from erp.lives import Life
from erp.plan import Plan

NULL = r"\N"
_BLOCK_ROWS = 20_000

# In the order of the rows below.
COLUMNS = {
    "lieferant": ("id", "name", "ort", "land"),
    "lager": ("id", "name", "ort", "klima"),
    "artikel": ("id", "artikelnummer", "name", "kategorie", "einheit", "preis", "mindestbestand", "lieferant_id"),
    "charge": ("id", "chargennummer", "artikel_id", "lieferant_id", "produktionsdatum", "mhd", "status"),
    "auftrag": (
        *("id", "auftragsnummer", "art", "artikel_id", "lieferant_id"),
        *("menge", "bestelldatum", "liefertermin", "status"),
    ),
    "lagerbewegung": ("id", "datum", "artikel_id", "charge_id", "auftrag_id", "lager_id", "art", "menge"),
}


def blocks(plan: Plan, table: str) -> Iterator[bytes]:
    """Yield a table's rows in blocks of COPY text."""
    if table == "lagerbewegung":
        yield from _lagerbewegung(plan)
        return
    rows = {"lieferant": _lieferant, "lager": _lager, "artikel": _artikel, "charge": _charge, "auftrag": _auftrag}
    block: list[str] = []
    for row in rows[table](plan):
        block.append(row)
        if len(block) == _BLOCK_ROWS:
            yield _encoded(block)
            block.clear()
    yield _encoded(block)


def _encoded(rows: Iterable[str]) -> bytes:
    text = "\n".join(rows)
    return f"{text}\n".encode() if text else b""


def _supplier(plan: Plan, article: int, category: Category) -> int | str:
    """Return who delivers an article; nobody does if it is made."""
    return NULL if category.made else article * 31 % plan.size.suppliers + 1


def _lieferant(plan: Plan) -> Iterator[str]:
    for number in range(1, plan.size.suppliers + 1):
        town = number * 7 % len(TOWNS)
        name = f"{TRADES[number % len(TRADES)]} {TOWNS[town]} {number:03}"
        yield f"{number}\t{name}\t{TOWNS[town]}\t{COUNTRIES[town]}"


def _lager(_: Plan) -> Iterator[str]:
    for number, (name, town, climate) in enumerate(STORES, 1):
        yield f"{number}\t{name}\t{town}\t{climate}"


def _artikel(plan: Plan) -> Iterator[str]:
    rng = random.Random("articles")  # noqa: S311 - data, no secrets
    for number, category in enumerate(plan.categories, 1):
        name = f"{rng.choice(category.words)} {rng.choice(VARIANTS)} {rng.choice(PACKS)} {rng.randint(1, 25)}"
        price = f"{rng.lognormvariate(2, 1) + 0.05:.2f}"
        minimum = rng.choice((0, 50, 100, 250, 500, 1000))
        supplier = _supplier(plan, number, category)
        yield (
            f"{number}\t{category.name[:2].upper()}{number:06}\t{name}\t{category.name}"
            f"\t{category.unit}\t{price}\t{minimum}\t{supplier}"
        )


def _charges(plan: Plan) -> Iterator[tuple[int, int, int, Life]]:
    """Yield every charge: its number, day, article and life."""
    number = 0
    for day in range(plan.size.days):
        for article, life in plan.charges_of(day):
            number += 1
            yield number, day, article, life


def _charge(plan: Plan) -> Iterator[str]:
    days, last = plan.days, plan.size.days - 1
    for number, day, article, _ in _charges(plan):
        category = plan.categories[article - 1]
        shortest, longest = category.shelf_life
        best_before = days.text(day + shortest + article * 17 % (longest - shortest))
        status = "gesperrt" if number % 300 == 0 else "quarantaene" if day > last - 2 else "frei"
        yield (
            f"{number}\tCH{days.texts[day][2:4]}-{number:07}\t{article}\t{_supplier(plan, article, category)}"
            f"\t{days.texts[day]}\t{best_before}\t{status}"
        )


def _auftrag(plan: Plan) -> Iterator[str]:
    """Yield for each charge the order that brought it in and, if it is sold, the one that it is sold against."""
    days, last, number = plan.days, plan.size.days - 1, 0
    for charge, day, article, life in _charges(plan):
        number += 1
        supplier = _supplier(plan, article, plan.categories[article - 1])
        ordered, due = days.text(day - 3 - charge % 18), days.texts[day]
        art = "Fertigung" if life.made else "Einkauf"
        yield f"{number}\tAU{number:08}\t{art}\t{article}\t{supplier}\t{life.lot_text}\t{ordered}\t{due}\terledigt"
        if life.made:
            number += 1
            status = "offen" if day + 60 > last else "erledigt"
            due = days.text(day + 60)
            yield f"{number}\tAU{number:08}\tVerkauf\t{article}\t{NULL}\t{life.lot_text}\t{ordered}\t{due}\t{status}"


def _lagerbewegung(plan: Plan) -> Iterator[bytes]:
    """Yield a day's movements per block, in the order of time; within a day, each charge's in the order of its life."""
    times = times_of_day()
    waiting: list[list[str]] = [[] for _ in plan.days.texts]
    number, charge, order = 1, 0, 0
    for day in range(plan.size.days):
        for article, life in plan.charges_of(day):
            charge += 1
            order += 1
            days, offset = plan.days.after(day, weekends=life.weekend_work)
            # Every movement of a charge begins alike, but for the order that it refers to.
            start = f"{article}\t{charge}\t"
            starts = (f"{start}{NULL}\t", f"{start}{order}\t", f"{start}{order + 1}\t")
            order += life.made
            waiting[day].append(starts[1] + life.steps[0][2])
            for step, reference, rest in life.steps[1:]:
                waiting[days[offset + step]].append(starts[reference] + rest)
        rows, waiting[day] = waiting[day], []
        yield _timed(rows, number, plan.days.texts[day], times, (day * 7919) & 0xFFFF)
        number += len(rows)


def _timed(rows: list[str], number: int, day: str, times: list[str], shift: int) -> bytes:
    """Give a day's rows their numbers and their times, spread over the day's timetable."""
    if not rows:
        return b""
    step = max(1, len(times) // len(rows))
    start = shift % (len(times) - step * len(rows) + 1)
    timetable = times[start : start + step * len(rows) : step]
    stamped = zip(range(number, number + len(rows)), timetable, rows, strict=True)
    return _encoded([f"{key}\t{day} {time}\t{row}" for key, time, row in stamped])
