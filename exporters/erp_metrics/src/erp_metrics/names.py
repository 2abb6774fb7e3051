"""Query names, bounded: declared ones, and, unless a list says which there are, the first so many others."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from erp_metrics import sql

OTHER = sql.UNKNOWN
BLOCK, COMMENT, DECLARED, DERIVED = "block", "comment", "declared", "derived"
SOURCES = (BLOCK, COMMENT, DECLARED, DERIVED, OTHER)


class Named(NamedTuple):
    """A query name, and what gave it: block, comment, declaration, derivation; `other` is nobody's."""

    name: str
    source: str


class Names:
    """Turns statements into names, of which there are never more than a bound; for one thread at a time."""

    def __init__(self, limit: int) -> None:
        """Take the number of names beside `other` and the known ones while there is no allow-list."""
        self.known: frozenset[str] = frozenset()
        self._closed = False
        self._limit = limit
        self._taken: set[str] = set()
        self._statements: dict[str, str] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []

    def allow(self, names: Iterable[str]) -> None:
        """Add to the allow-list; once it has names, all others are `other`."""
        added = frozenset(names)
        self.known |= added
        self._closed = self._closed or bool(added)

    def declare(self, statements: Mapping[str | re.Pattern[str], str]) -> None:
        """Give names to statements: whole texts, white space aside, or patterns that are searched for in turn."""
        for statement, name in statements.items():
            if isinstance(statement, str):
                self._statements[_plain(statement)] = name
            else:
                self._patterns.append((statement, name))
            self.known |= {name}

    def of(self, text: str) -> Named | None:
        """Return a statement's bounded name: its comment's, a declared or a derived one; None if it is empty."""
        for source, find in ((COMMENT, sql.comment_name), (DECLARED, self._declared), (DERIVED, sql.derive)):
            name = find(text)
            if name is not None:
                return self.bounded(name, source)
        return None

    def bounded(self, name: str, source: str) -> Named:
        """Return the name, or `other` where it would be one too many."""
        if name in self.known or name in self._taken:
            return Named(name, source)
        if not self._closed and name != OTHER and len(self._taken) < self._limit:
            self._taken.add(name)
        return Named(name, source) if name in self._taken else Named(OTHER, OTHER)

    def _declared(self, text: str) -> str | None:
        if not self._statements and not self._patterns:
            return None
        name = self._statements.get(_plain(text))
        return name or next((name for pattern, name in self._patterns if pattern.search(text)), None)


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip("; ")
