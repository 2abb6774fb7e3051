"""CREATE INDEX CONCURRENTLY that can be interrupted: leftovers are recognised, waited for, dropped and rebuilt."""

import re
import time
from dataclasses import dataclass

import psycopg
from psycopg import sql

from messwarte_migrate import MigrationError
from messwarte_migrate.history import Connection
from messwarte_migrate.session import say

_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_CREATE = re.compile(
    rf"CREATE\s+(?P<unique>UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?(?P<name>{_NAME}\s+)?"
    rf"ON\s+(?:ONLY\s+)?(?P<table>{_NAME}(?:\s*\.\s*{_NAME})?)\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN = re.compile(r"\([\w, ]+\)")
_FIND = b"""
SELECT c.oid, format('%%I.%%I', n.nspname, c.relname) AS shown, i.indisvalid AS valid, i.indisunique AS unique,
    i.indrelid = to_regclass(%(table)s) AS same_table, i.indrelid::regclass::text AS table,
    pg_get_indexdef(i.indexrelid) AS definition,
    (SELECT p.pid FROM pg_stat_progress_create_index AS p
     WHERE p.index_relid = c.oid AND p.pid <> pg_backend_pid() LIMIT 1) AS builder
FROM pg_class AS t
JOIN pg_class AS c ON c.relnamespace = t.relnamespace AND c.relname = %(name)s
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
WHERE t.oid = to_regclass(%(table)s)
"""


@dataclass(frozen=True)
class Wanted:
    """What a CREATE INDEX CONCURRENTLY statement asks for; `rest` is what follows the table's name."""

    name: str
    table: str
    unique: bool
    rest: str


@dataclass(frozen=True)
class Found:
    """A relation that has the wanted index's name."""

    shown: str
    valid: bool | None
    unique: bool
    same_table: bool
    table: str
    definition: str
    builder: int | None


def parse(statement: str) -> Wanted | None:
    """Return what a statement without comments creates concurrently, or None when it is of another kind."""
    found = _CREATE.fullmatch(statement)
    if not found:
        return None
    if not found["name"]:
        raise MigrationError("an index built CONCURRENTLY needs a name, by which a leftover can be recognised")
    return Wanted(_fold(found["name"].strip()), found["table"], bool(found["unique"]), _normal(found["rest"]))


def _fold(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _normal(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip().lower().removeprefix("using btree").strip()
    return text.replace("( ", "(").replace(" )", ")").replace(" ,", ",")


def find(connection: Connection, wanted: Wanted) -> Found | None:
    """Return what bears the index's name in its table's schema, or None."""
    row = connection.execute(_FIND, {"name": wanted.name, "table": wanted.table}).fetchone()
    if row is None:
        return None
    _, shown, valid, unique, same_table, table, definition, builder = row
    return Found(shown, valid, bool(unique), bool(same_table), str(table), str(definition), builder)


def make_way(connection: Connection, wanted: Wanted) -> bool:
    """Return whether the index still has to be built, after a leftover was dropped; raise for another of its name."""
    found = _wait_for_other_builder(connection, wanted)
    if found is None:
        return True
    if found.valid is None:
        raise MigrationError(f"{found.shown} exists and is no index")
    if not found.same_table:
        raise MigrationError(f"{found.shown} exists already, on table {found.table}")
    if found.valid:
        _refuse_other_definition(found, wanted)
        return False
    say(f"{found.shown} is an invalid leftover of an interrupted build: dropping and rebuilding it")
    drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(*_parts(found.shown)))
    connection.execute(drop)
    return True


def _wait_for_other_builder(connection: Connection, wanted: Wanted) -> Found | None:
    said = False
    while (found := find(connection, wanted)) and not found.valid and found.builder:
        if not said:
            say(f"waiting for process {found.builder}, which is building {found.shown}")
            said = True
        # In autocommit between two looks: a waiting session must hold no snapshot that the builder waits for.
        time.sleep(0.25)
    return found


def _parts(shown: str) -> list[str]:
    return [_fold(part) for part in re.findall(_NAME, shown)]


def _refuse_other_definition(found: Found, wanted: Wanted) -> None:
    _, _, rest = found.definition.partition(" ON ")
    actual = _normal(rest[rest.index(" USING ") :] if " USING " in rest else rest)
    # Only plain columns compare as text; the server rewrites expressions.
    plain = _PLAIN.fullmatch(actual) and _PLAIN.fullmatch(wanted.rest)
    if found.unique != wanted.unique or (plain and actual != wanted.rest):
        raise MigrationError(f"{found.shown} exists already, but as: {found.definition}")


def verify(connection: Connection, wanted: Wanted) -> None:
    """Raise MigrationError unless the index is there and valid."""
    found = find(connection, wanted)
    if found is None or not found.valid or not found.same_table:
        raise MigrationError(f"index {wanted.name} on {wanted.table} is not there or not valid after it was built")


def advice(error: psycopg.Error, wanted: Wanted) -> str:
    """Return what to know after a build failed."""
    cause = "the rows are not unique; mend them first. " if isinstance(error, psycopg.errors.UniqueViolation) else ""
    return f"{cause}{wanted.name} may be left invalid; the next apply drops and rebuilds it"
