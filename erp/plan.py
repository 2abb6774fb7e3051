"""Which charges there are and when: drawn from a seed, so that the same call makes the same data."""

import datetime
import random
from array import array
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from erp.calendar_days import Days
from erp.catalogue import CATEGORIES, Category
from erp.lives import LONGEST_DAYS, PER_KIND, Life, kind, lives

# Calendar days within which a pattern surely ends, holidays included.
_AFTER = LONGEST_DAYS * 7 // 5 + 15
_ZIPF = 1.05
_OWN_LIVES = 8
_BATCH = 2000
_FILL_DAYS = 30
_SHIFT = 12


@dataclass(frozen=True)
class Size:
    """How much data: movements, articles, suppliers, and over how many days."""

    movements: int
    articles: int
    suppliers: int
    days: int


SIZES = {
    "small": Size(100_000, 2_000, 60, 365),
    "medium": Size(2_000_000, 10_000, 200, 730),
    "large": Size(20_000_000, 50_000, 500, 1460),
}


class Plan:
    """Articles and charges. A charge is (article, life); charges are numbered from 1 by their day of production."""

    def __init__(self, size: Size, seed: int, until: datetime.date) -> None:
        """Draw exactly as many movements as the size has, all before the day `until`."""
        self.size = size
        self.rng = random.Random(f"erp {seed}")  # noqa: S311 - data, no secrets
        self.days = Days(until, size.days, _AFTER)
        self.lives = lives(self.rng)
        # Article 1 is not the hottest one: ids tell nothing.
        self.categories: list[Category] = self.rng.choices(CATEGORIES, k=size.articles)
        self._ranks = self.rng.sample(range(1, size.articles + 1), size.articles)
        self._by_day = [array("Q") for _ in range(size.days)]
        self._draw()

    def charges_of(self, day: int) -> Iterator[tuple[int, Life]]:
        """Yield the charges produced on a day: article and life."""
        lives, low = self.lives, (1 << _SHIFT) - 1
        for packed in self._by_day[day]:
            yield packed >> _SHIFT, lives[packed & low]

    def number_of_charges(self) -> int:
        """Return how many charges there are."""
        return sum(map(len, self._by_day))

    def _draw(self) -> None:
        """Draw charges until nearly all movements are there, and fill up with charges that have only come in."""
        left, longest = self.size.movements, max(len(life.steps) for life in self.lives)
        weights = list(accumulate(rank**-_ZIPF for rank in range(1, self.size.articles + 1)))
        by_category = {category.name: self.days.cumulated_weights(category.peak_day) for category in CATEGORIES}
        while left > longest:
            for article in self.rng.choices(self._ranks, cum_weights=weights, k=_BATCH):
                if left <= longest:
                    break
                category = self.categories[article - 1]
                of_days = by_category[category.name]
                day = bisect(of_days, self.rng.random() * of_days[-1], 0, self.size.days - 1)
                own = (article * 13 + int(self.rng.random() * _OWN_LIVES)) % PER_KIND
                left -= self._add(article, day, kind(category.made, category.whole) + own)
        for _ in range(left):
            article = self.rng.choices(self._ranks, cum_weights=weights)[0]
            category = self.categories[article - 1]
            day = self.size.days - 1 - self.rng.randrange(min(_FILL_DAYS, self.size.days))
            self._add(article, day, kind(category.made, category.whole) + PER_KIND)

    def _add(self, article: int, day: int, number: int) -> int:
        """Add a charge; return how many of its movements are in time."""
        self._by_day[day].append(article << _SHIFT | number)
        life = self.lives[number]
        if day + _AFTER < self.size.days:
            return len(life.steps)
        days, offset = self.days.after(day, weekends=life.weekend_work)
        return sum(days[offset + step] < self.size.days for step, _, _ in life.steps[1:]) + 1
