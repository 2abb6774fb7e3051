"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import TextIO

_BAR = 30
_BAR_SECONDS = 0.1


class Progress:
    """Shows how much of a known whole is done, how fast, and how long it will take."""

    def __init__(
        self, title: str, total: int, unit: str, *, line_seconds: float = 5, out: TextIO | None = None
    ) -> None:
        """Take what is done, of how many units, and how often to say so off a terminal (standard error)."""
        self._title, self._total, self._unit, self._out = title, total, unit, out or sys.stderr
        self._tty = self._out.isatty()
        self._every = _BAR_SECONDS if self._tty else line_seconds
        self._begun = self._shown = time.monotonic()
        self._done = 0

    def add(self, number: int) -> None:
        """Note that so many more units are done."""
        self._done += number
        now = time.monotonic()
        if now - self._shown >= self._every:
            self._shown = now
            self._show(now - self._begun)

    def end(self) -> None:
        """Take the bar away."""
        if self._tty:
            print("\r\x1b[K", end="", file=self._out, flush=True)

    def _show(self, seconds: float) -> None:
        share = self._done / max(self._total, 1)
        rate = self._done / seconds if seconds else 0.0
        left = (self._total - self._done) / rate if rate else 0.0
        text = f"{self._title}: {share:4.0%}, {self._done:,} {self._unit}, {rate:,.0f}/s, {left:.0f} s left"
        if self._tty:
            filled = min(_BAR, int(share * _BAR))
            print(f"\r[{'#' * filled}{'.' * (_BAR - filled)}] {text}\x1b[K", end="", file=self._out, flush=True)
        else:
            print(text, file=self._out, flush=True)
