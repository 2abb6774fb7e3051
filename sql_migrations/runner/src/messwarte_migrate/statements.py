"""Splitting SQL at its semicolons as psql does, and telling what must not run inside a transaction."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<line_comment>--[^\n]*)
  | (?P<comment>/\*)
  | (?P<text>\b[Ee]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*")
  | (?P<dollar>(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
  | (?P<open>\()
  | (?P<close>\))
  | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")
_ALONE = re.compile(
    r"(?:CREATE\s+(?:UNIQUE\s+)?INDEX|DROP\s+INDEX|REINDEX\b.*|ALTER\s+TABLE\b.*\bDETACH\b.*)\s+CONCURRENTLY\b"
    r"|VACUUM\b|(?:CREATE|DROP)\s+(?:DATABASE|TABLESPACE)\b|ALTER\s+SYSTEM\b",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL = re.compile(r"(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ROLLBACK|ABORT)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """One SQL statement without its semicolon and the comments before it, and the line it begins in."""

    text: str
    line: int

    @property
    def bare(self) -> str:
        """The statement without comments."""
        return _without_comments(self.text)

    @property
    def needs_no_transaction(self) -> bool:
        """Whether PostgreSQL refuses the statement inside a transaction."""
        return bool(_ALONE.match(self.bare))

    @property
    def controls_transaction(self) -> bool:
        """Whether the statement begins or ends a transaction."""
        return bool(_CONTROL.match(self.bare))


def split(text: str) -> list[Statement]:
    """Return a file's statements; semicolons in strings, comments and parentheses do not end one."""
    statements = []
    start = depth = 0
    for kind, _, end in _tokens(text):
        depth += {"open": 1, "close": -1}.get(kind, 0)
        if kind == "end" and depth <= 0:
            statements.append(_statement(text, start, end - 1))
            start, depth = end, 0
    statements.append(_statement(text, start, len(text)))
    return [statement for statement in statements if statement.bare]


def _statement(text: str, start: int, end: int) -> Statement:
    for kind, token_start, token_end in _tokens(text[:end], start):
        if kind not in {"comment", "line_comment"} or text[start:token_start].strip():
            break
        start = token_end
    start += len(text[start:end]) - len(text[start:end].lstrip())
    return Statement(text[start:end].rstrip(), text.count("\n", 0, start) + 1)


def _tokens(text: str, at: int = 0) -> Iterator[tuple[str, int, int]]:
    while found := _TOKEN.search(text, at):
        kind = found.lastgroup or ""
        at = _comment_end(text, found.start()) if kind == "comment" else found.end()
        yield ("dollar" if kind == "tag" else kind), found.start(), at


def _comment_end(text: str, start: int) -> int:
    """Return where a comment ends; PostgreSQL's comments nest."""
    depth = 0
    for found in _COMMENT.finditer(text, start):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return len(text)


def _without_comments(text: str) -> str:
    parts, at = [], 0
    for kind, start, end in _tokens(text):
        if kind in {"comment", "line_comment"}:
            parts.append(text[at:start] + " ")
            at = end
    return "".join([*parts, text[at:]]).strip()
