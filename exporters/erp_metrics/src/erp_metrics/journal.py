"""What happened, noted in a moment and counted later, many at once.

Between two queries a processor's caches have been somebody else's, so that each further function and object costs far
more there than in a loop. So the hooks only append to this process's journal. It is counted when there is a batch of
it; what was counted is added up when metrics are shown, every quarter of a second where another process may show them,
and when the process ends.
"""

import threading
from collections import deque
from time import sleep
from typing import Any, Protocol

from erp_metrics.faults import report

# Fewer would run cold code too often, more would let the application wait too long.
BATCH = 256
# A query that took longer, in seconds, is counted at once, which is nothing beside it: its text may be long, too.
LONG = 0.005
_SECONDS = 0.25

# A query that ended: its statement, what it was sent in, seconds and rows. Or, where its queries end, a request:
# ANSWERED, itself, seconds and status. Or a connection that came back: RETURNED, nothing, seconds and nothing.
ANSWERED, RETURNED = object(), object()
Ended = tuple[Any, Any, float, int]
# What came of a query later than its end, or beside it: its statement, the block that named it, rows, and its error's
# class.
Result = tuple[Any, str | None, int, str | None]


class Counter(Protocol):
    """Who counts what was noted."""

    def count(self, ended: deque[Ended], results: deque[Result]) -> None:
        """Take entries away and count them; never raises."""

    def settle(self) -> None:
        """Let what was counted be seen; never raises."""


ended: deque[Ended] = deque()
results: deque[Result] = deque()


class _State:
    """Who counts; one thread at a time does."""

    counter: Counter | None = None
    lock = threading.RLock()
    thread: threading.Thread | None = None


def note_end(entry: Ended) -> None:
    """Append a query, a request or a connection; never raises."""
    ended.append(entry)
    if len(ended) >= BATCH or entry[2] > LONG:
        count_batch()


def note_result(result: Result) -> None:
    """Append a result; never raises."""
    results.append(result)
    if len(results) >= BATCH:
        count_batch()


def count_batch() -> None:
    """Count, unless another thread does; never raises."""
    try:
        if _State.lock.acquire(blocking=False):
            try:
                _count()
            finally:
                _State.lock.release()
    except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
        report("journal.count_batch", fault)


def count_all() -> None:
    """Count what has been noted so far, and let it be seen."""
    with _State.lock:
        if ended or results:
            _count()
        if _State.counter is not None:
            _State.counter.settle()


def open_for(counter: Counter | None) -> None:
    """Let somebody count from now on; what was noted before is forgotten."""
    with _State.lock:
        _forget()
        _State.counter = counter


def count_regularly() -> None:
    """Count from a thread of this process, too; it is there once."""
    if _State.thread is None:
        _State.thread = threading.Thread(target=_regularly, name="erp_metrics", daemon=True)
        _State.thread.start()


def restart() -> None:
    """Begin anew in a forked process: its parent counts what was noted, and threads are not forked."""
    _State.lock = threading.RLock()
    _forget()
    if _State.thread is not None:
        _State.thread = None
        count_regularly()


def _count() -> None:
    if _State.counter is not None:
        _State.counter.count(ended, results)
    else:
        _forget()


def _forget() -> None:
    ended.clear()
    results.clear()


def _regularly() -> None:
    while True:
        # Waiting for an event that never comes would cost twice as much.
        sleep(_SECONDS)
        count_all()
