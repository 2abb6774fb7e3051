"""Query names, bounded: an allow-list, or the first so many; everything else is `other`."""

import threading
from collections.abc import Iterable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from erp_metrics import sql

OTHER = sql.UNKNOWN
_LONGEST_KEY = 2000
_CACHED = 2000
_SHORTEST = 4

_current: ContextVar[str | None] = ContextVar("erp_metrics_query", default=None)


class query:  # noqa: N801 - reads as a verb: `with erp_metrics.query("artikel_suche"):`
    """Name the queries of a block, in threads and tasks alike; usable with `with` and with `async with`."""

    __slots__ = ("_name", "_token")

    def __init__(self, name: str) -> None:
        """Take the name; where an allow-list is set, one that is not on it counts as `other`."""
        self._name = name
        self._token: Token[str | None] | None = None

    def __enter__(self) -> None:
        self._token = _current.set(self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class Names:
    """Turns statements into names, of which there are never more than a bound."""

    def __init__(self, limit: int) -> None:
        """Take the number of names beside `other` while there is no allow-list."""
        self.known: frozenset[str] = frozenset()
        self._limit = limit
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._derived: dict[str, str | None] = {}

    def of(self, statement: Any) -> str | None:
        """Return a statement's bounded name: the block's, its comment's or a derived one; None if it is empty."""
        if isinstance(statement, (str, bytes)) and len(statement) < _SHORTEST and sql.is_empty(statement):
            return None
        named = _current.get() or self._derive(statement)
        return None if named is None else self.bounded(named)

    def allow(self, names: Iterable[str]) -> None:
        """Add to the allow-list; once it has names, all others are `other`."""
        self.known |= frozenset(names)

    def bounded(self, name: str) -> str:
        """Return the name, or `other` where it would be one too many."""
        if name in self.known or name in self._taken:
            return name
        if self.known:
            return OTHER
        with self._lock:
            if len(self._taken) < self._limit:
                self._taken.add(name)
        return name if name in self._taken else OTHER

    def _derive(self, statement: Any) -> str | None:
        text = sql.text_of(statement)
        key = text[:_LONGEST_KEY]
        try:
            return self._derived[key]
        except KeyError:
            name = sql.derive(text)
        if len(self._derived) >= _CACHED:
            self._derived.clear()
        self._derived[key] = name
        return name
