"""Statement texts: fetched once per statement, data statements only, literals and comments taken out, cut."""

import re
import time
from collections.abc import Collection, Iterator

import psycopg

from pgstat_exporter import log
from pgstat_exporter.content import Collector, Texts
from pgstat_exporter.exposition import label_text
from pgstat_exporter.session import Limits, Session, Unreachable, one_line

LENGTH = 300
_KEEP = 5000
_PAUSE = 300.0

# What may stand for itself: identifiers and the server's own placeholders come before numbers, so that t1 and $1 stay.
_TOKEN = re.compile(
    r"""
    (?P<blank>--[^\n]*|\s+)
  | (?P<literal>\b[EeBbXx]'(?:[^'\\]|\\.|'')*(?:'|\Z)
               |(?:\b[Uu]&)?'(?:[^']|'')*(?:'|\Z)
               |\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z))
  | (?P<kept>"(?:[^"]|"")*"?|\$\d+|[^\W\d][\w$]*)
  | (?P<number>(?:0[xXoObB])?\d[\w.]*(?:(?<=[eE])[+-]\d+)?|\.\d\w*)
    """,
    re.VERBOSE | re.DOTALL,
)
# The comment by which an application names a statement (erp_metrics does); names only, no text that could be data.
_NAMED = re.compile(r"\s*/\*\s*name:\s*([\w.:/-]{1,100})\s*\*/")
_COMMENT = re.compile(r"/\*|\*/")
_DATA = re.compile(r"\(*\s*(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|TABLE)\b", re.IGNORECASE)


def scrub(text: str, length: int = LENGTH) -> str | None:
    """Return a data statement without literals and comments, cut to `length`; None for any other statement.

    The server normalises too, but keeps the raw text when it forgot the statement while it ran.
    """
    # Where such a literal ends depends on the session's standard_conforming_strings, which nobody can tell any more.
    if "\\'" in text:
        return None
    clean = " ".join("".join(_parts(text)).split())
    if not _DATA.match(clean):
        return None
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def _parts(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if text.startswith("/*", at):
            at = _comment_end(text, at)
            yield " "
        elif found:
            at = found.end()
            yield {"kept": found[0], "blank": " "}.get(found.lastgroup or "", "?")
        else:
            yield text[at]
            at += 1


def _comment_end(text: str, start: int) -> int:
    """Return where a comment ends; PostgreSQL's comments nest."""
    depth = 0
    for found in _COMMENT.finditer(text, start):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return len(text)


def name_of(text: str) -> str:
    """Return the name that the application gave a statement in a comment before it, empty without one."""
    found = _NAMED.match(text)
    return found[1] if found else ""


class TextCache:
    """Texts and names by key; asks the server only for keys it has not seen, and rests after a failure."""

    def __init__(self, collector: Collector, texts: Texts) -> None:
        self._texts = texts
        self._sql = collector.sql[texts.file].encode()
        self._known: dict[str, tuple[str, str] | None] = {}
        self._rest_until = 0.0

    def lines(self, session: Session, schema: str | None, keys: Collection[str], limits: Limits) -> list[str]:
        """Return a sample line for every key; texts that cannot be had are left out."""
        missing = sorted(set(keys).difference(self._known))
        if missing and time.monotonic() >= self._rest_until:
            self._fetch(session, schema, missing, limits)
        if len(self._known) > _KEEP:
            self._known = {key: self._known[key] for key in keys if key in self._known}
        names = (self._texts.key, self._texts.label, self._texts.name_label)
        found = [(key, *known) for key in sorted(set(keys)) if (known := self._known.get(key))]
        labels = (label_text(names[: len(one)], one) for one in (tuple(filter(None, values)) for values in found))
        return [f"{self._texts.name}{{{text}}} 1\n" for text in labels]

    def _fetch(self, session: Session, schema: str | None, keys: list[str], limits: Limits) -> None:
        # In a transaction of its own: texts may be hundreds of MB, and figures must not be lost with them.
        try:
            with session.transaction(limits, schema):
                rows = session.fetch(self._sql, {"keys": keys})
        except (psycopg.Error, Unreachable) as error:
            self._rest_until = time.monotonic() + _PAUSE
            log.write("warning", "statement texts could not be read", error=one_line(error), retry_in=f"{_PAUSE:g}s")
            return
        found = {row[self._texts.key]: row[self._texts.label] or "" for row in rows}
        for key in keys:
            text = found.get(key, "")
            shown = scrub(text)
            self._known[key] = (shown, name_of(text)) if shown else None
