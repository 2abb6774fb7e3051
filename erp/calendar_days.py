"""The days of the data: how busy each is, and which are working days."""

import datetime
import math
from bisect import bisect_right
from itertools import accumulate

_WEEKDAYS = (1.0, 1.05, 1.05, 1.0, 0.9, 0.12, 0.04)
_HOLIDAY = 0.02
_HOLIDAYS = frozenset({(1, 1), (5, 1), (10, 3), (12, 24), (12, 25), (12, 26), (12, 31)})
_SEASON = 0.45
_GROWTH = 0.3
# Movements per hour of a working day, in shares: two shifts, breaks, a quiet night.
_HOURS = (1, 1, 1, 1, 2, 10, 60, 90, 100, 95, 85, 70, 55, 80, 90, 85, 70, 55, 40, 30, 20, 10, 3, 1)
_TIMES = 1 << 17


class Days:
    """The days before `until`, numbered from 0; and some after them, on which nothing may happen any more."""

    def __init__(self, until: datetime.date, count: int, after: int) -> None:
        """Take the first day that is not there any more, how many there are, and how far to look beyond."""
        first = until - datetime.timedelta(days=count)
        dates = [first + datetime.timedelta(days=number) for number in range(count + after)]
        self.count = count
        self.dates = dates[:count]
        self.texts = [date.isoformat() for date in dates]
        self.every = list(range(len(dates)))
        self.working = [number for number, date in enumerate(dates) if _works(date)]
        self._next = [bisect_right(self.working, number) - 1 for number in self.every]

    def after(self, day: int, *, weekends: bool) -> tuple[list[int], int]:
        """Return days and an offset into them: at offset + n is the n-th day after a day, or the n-th working day."""
        return (self.every, day) if weekends else (self.working, self._next[day])

    def text(self, number: int) -> str:
        """Return any day as ISO text, also one long before or after."""
        return (self.dates[0] + datetime.timedelta(days=number)).isoformat()

    def cumulated_weights(self, peak_day: int) -> list[float]:
        """Return the days' production weights, cumulated: weekends, season round a day of the year, growth."""

        def weight(number: int, date: datetime.date) -> float:
            season = 1 + _SEASON * math.cos((date.timetuple().tm_yday - peak_day) * math.tau / 365.25)
            growth = 1 + _GROWTH * number / self.count
            quiet = _WEEKDAYS[date.weekday()] if (date.month, date.day) not in _HOLIDAYS else _HOLIDAY
            return season * growth * quiet

        return list(accumulate(weight(number, date) for number, date in enumerate(self.dates)))


def _works(date: datetime.date) -> bool:
    return date.weekday() < 5 and (date.month, date.day) not in _HOLIDAYS


def times_of_day() -> list[str]:
    """Return many times of a day in order, as dense as the work is; a slice with a step is a day's timetable."""
    total = sum(_HOURS)
    times: list[str] = []
    for hour, share in enumerate(_HOURS):
        here = _TIMES * share // total
        for number in range(here):
            second = 3600 * number // here
            times.append(f"{hour:02}:{second // 60:02}:{second % 60:02}")
    return times
