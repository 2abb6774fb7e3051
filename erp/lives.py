"""What happens to a charge from its receipt until it is used up: patterns that charges share."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from erp.catalogue import STORES

# So many days after the receipt a pattern ends: working days, unless there is work at weekends.
LONGEST_DAYS = 42
PER_KIND = 256
_LOTS = (250, 500, 1000, 2000, 5000)
_PIECES_PER_CARTON = 24

# Which order a movement refers to: none, the one that brought the charge in, or the one that it is sold against.
NO_ORDER, ORIGIN, SALE = 0, 1, 2

Step = tuple[int, int, str]


@dataclass(frozen=True)
class Life:
    """A charge's movements (days from the receipt, which order, `store TAB kind TAB amount`); the lot in 1/1000."""

    steps: tuple[Step, ...]
    lot: int
    made: bool
    whole: bool
    weekend_work: bool

    @property
    def lot_text(self) -> str:
        """The lot as the database writes it."""
        return _amount(self.lot)


def lives(rng: random.Random) -> list[Life]:
    """Return the patterns: for each kind of article (see `kind`) PER_KIND, then one of nothing but a receipt."""
    found: list[Life] = []
    for made in (False, True):
        for whole in (False, True):
            found += [_life(rng, made, whole, number % 8 == 0) for number in range(PER_KIND)]
            receipt = found[-1]
            found.append(Life(receipt.steps[:1], receipt.lot, made, whole, weekend_work=True))
    return found


def kind(made: bool, whole: bool) -> int:
    """Return where the patterns of a kind of article begin in `lives`."""
    return (2 * made + whole) * (PER_KIND + 1)


def _life(rng: random.Random, made: bool, whole: bool, weekend_work: bool) -> Life:
    lot = _lot(rng, whole)
    store, other = rng.sample(range(1, len(STORES) + 1), 2)
    steps: list[Step] = [(0, ORIGIN, f"{store}\t{'Produktion' if made else 'Wareneingang'}\t{_amount(lot)}")]
    first = 1
    if rng.random() < 0.4:
        first += rng.randrange(3)
        steps += [(first, NO_ORDER, f"{store}\tUmlagerung\t{_amount(-lot)}")]
        steps += [(first, NO_ORDER, f"{other}\tUmlagerung\t{_amount(lot)}")]
        store = other
    last = rng.randint(10, LONGEST_DAYS)
    parts = list(_parts(rng, lot, rng.randint(4, 32), whole))
    days = sorted(rng.randint(first, last) for _ in parts)
    for number, (day, part) in enumerate(zip(days, parts, strict=True)):
        order, art = (SALE, "Verkauf") if made else (NO_ORDER, "Verbrauch")
        if number == len(parts) - 1 and rng.random() < 0.5:
            order, art = NO_ORDER, rng.choice(("Ausschuss", "Inventur"))
        steps.append((day, order, f"{store}\t{art}\t{_amount(-part)}"))
    return Life(tuple(steps), lot, made, whole, weekend_work)


def _lot(rng: random.Random, whole: bool) -> int:
    """Return a lot in thousandths: pieces in full cartons, masses as the scales show them."""
    if whole:
        return rng.randint(10, 60) * _PIECES_PER_CARTON * 1000
    return rng.choice(_LOTS) * rng.randint(950, 1050)


def _parts(rng: random.Random, lot: int, count: int, whole: bool) -> Iterator[int]:
    """Divide most of a lot, at random, into amounts above zero; what is left stays in stock."""
    unit = 1000 if whole else 1
    left = lot // unit
    for remaining in range(count, 0, -1):
        part = max(1, round(left / remaining * rng.uniform(0.4, 1.4)))
        if part > left:
            return
        left -= part
        yield part * unit


def _amount(thousandths: int) -> str:
    sign = "-" if thousandths < 0 else ""
    whole, rest = divmod(abs(thousandths), 1000)
    return f"{sign}{whole}.{rest:03}"
