"""Latencies in bounded memory: buckets that grow by one per cent, so that a percentile is that exact."""

import math
from collections import Counter

_GROWTH = 1.01
_LOG = math.log(_GROWTH)
_SHORTEST = 1e-6


class Latencies:
    """Many durations in seconds, summed up."""

    def __init__(self) -> None:
        """Begin with none."""
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Add one."""
        self._buckets[math.ceil(math.log(max(seconds, _SHORTEST)) / _LOG)] += 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def percentile(self, percent: float) -> float:
        """Return the seconds within which so many per cent stayed, at most one per cent too high; 0 without any."""
        left = math.ceil(self.count * percent / 100)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return float(min(_GROWTH**bucket, self.longest))
        return self.longest

    def summary(self) -> dict[str, float]:
        """Return the usual figures in seconds."""
        figures = {f"p{percent}": round(self.percentile(percent), 6) for percent in (50, 95, 99)}
        return figures | {"max": round(self.longest, 6)}
