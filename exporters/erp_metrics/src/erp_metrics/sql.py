"""A short name for a statement: its leading comment's, or one made of its verb and first table."""

import re
from typing import Any

UNKNOWN = "other"

# Names come from a statement's beginning; what follows only costs time.
_ENOUGH = 4000
_NAME = re.compile(r"\s*/\*\s*name:\s*([\w.:/-]{1,100})\s*\*/")
_TOKEN = re.compile(
    r"""--[^\n]* | /\*.*?\*/ | '(?:[^']|'')*' | \$(\w*)\$.*?\$\1\$
        | (?P<quoted>"(?:[^"]|"")*") | (?P<word>[^\W\d][\w$]*) | (?P<mark>[().,;])""",
    re.VERBOSE | re.DOTALL,
)
_VERBS = frozenset({"select", "insert", "update", "delete", "merge"})
# The word after which a statement names its table; `update` names it at once.
_BEFORE_TABLE = {
    "select": ("from",),
    "insert": ("into",),
    "delete": ("from",),
    "merge": ("into",),
    "update": ("update",),
    "copy": ("copy",),
    "refresh": ("concurrently", "view"),
    "truncate": ("table", "truncate"),
}
_SKIP = frozenset({"only", "lateral", "table", "concurrently"})
_SANITIZE = re.compile(r"\W+")

Token = tuple[str, int]


def text_of(statement: Any) -> str:
    """Return the text of what psycopg takes as a statement: str, bytes, psycopg.sql or a template string."""
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        return statement[:_ENOUGH].decode(errors="replace")
    if hasattr(statement, "as_string"):
        return str(statement.as_string(None))
    return " ".join(statement.strings)


def is_empty(text: str | bytes) -> bool:
    """Tell whether a statement does nothing, as the checks of connection pools do."""
    return not (text.strip(b" ;\r\n\t") if isinstance(text, bytes) else text.strip(" ;\r\n\t"))


def comment_name(text: str) -> str | None:
    """Return the name that the statement's leading comment gives it."""
    named = _NAME.match(text)
    return named[1] if named else None


def derive(text: str) -> str | None:
    """Return a name made of what the statement says; None for an empty one, such as the pools' connection checks."""
    tokens = _tokens(text[:_ENOUGH])
    if not tokens:
        return None if is_empty(text) else UNKNOWN
    start = _verb_at(tokens)
    verb = tokens[start][0]
    if not (verb.isascii() and verb.isidentifier()):
        return UNKNOWN
    before, ctes = _BEFORE_TABLE.get(verb, ()), _ctes(tokens[:start])
    table = _table(tokens[start:], before, ctes) or _table(tokens[:start], before, ctes)
    return f"{verb}_{table}" if table else verb


def _tokens(text: str) -> list[Token]:
    """Return words and marks in lower case, each with its depth in parentheses."""
    found: list[Token] = []
    depth = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "mark":
            depth += {"(": 1, ")": -1}.get(match[0], 0)
            found.append((match[0], depth))
        elif kind == "word":
            found.append((match[0].lower(), depth))
        elif kind == "quoted":
            found.append((f'"{match[0][1:-1]}', depth))
    while found and found[0][0] in "();":
        found.pop(0)
    return found


def _verb_at(tokens: list[Token]) -> int:
    """Return where the statement's verb is: for WITH, after the common table expressions."""
    if tokens[0][0] != "with":
        return 0
    depth = tokens[0][1]
    return next((i for i, (word, at) in enumerate(tokens) if word in _VERBS and at == depth), 0)


def _ctes(tokens: list[Token]) -> frozenset[str | None]:
    """Return the names of common table expressions, which are no tables; other words beside them are in it, too."""
    return frozenset(_identifier(tokens, index) for index, (_, depth) in enumerate(tokens) if depth == tokens[0][1])


def _table(tokens: list[Token], before: tuple[str, ...], ctes: frozenset[str | None]) -> str | None:
    """Return the first table named after one of some words, at the statement's own depth if there is one."""
    own = tokens[0][1] if tokens else 0
    candidates: list[Token] = []
    for index, (word, depth) in enumerate(tokens):
        if word in before and tokens[max(index - 1, 0)][0] != "distinct":
            name = _identifier(tokens, index + 1)
            if name and name not in ctes:
                candidates.append((name, depth))
    candidates.sort(key=lambda one: one[1] != own)
    return candidates[0][0] if candidates else None


def _identifier(tokens: list[Token], at: int) -> str | None:
    """Return the last part of the qualified name that begins here, without what could be dangerous in a label."""
    words = [word for word, _ in tokens[at : at + 8]]
    while words and words[0] in _SKIP:
        words.pop(0)
    if not words or words[0] in "().,;" or words[0] in _VERBS:
        return None
    name = words[0]
    while len(words) > 2 and words[1] == ".":
        words = words[2:]
        name = words[0]
    return _SANITIZE.sub("_", name.lstrip('"')).lower() or None
