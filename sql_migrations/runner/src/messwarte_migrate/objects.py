"""What migrations leave in the database: its indexes and views, by the statements that make, rename and drop them."""

import re
from collections.abc import Sequence

from messwarte_migrate import indexes
from messwarte_migrate.files import Migration
from messwarte_migrate.history import Connection

_NAME = r'(?P<name>(?:"(?:[^"]|"")+"|[\w$]+)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[\w$]+))?)'
_KIND = r"(?:INDEX|(?:MATERIALIZED\s+)?VIEW)"
_MADE = re.compile(
    rf"CREATE\s+(?:OR\s+REPLACE\s+)?(?:UNIQUE\s+)?{_KIND}\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}",
    re.IGNORECASE,
)
_RENAMED = re.compile(rf"ALTER\s+{_KIND}\s+(?:IF\s+EXISTS\s+)?{_NAME}\s+RENAME\s+TO\s+(?P<to>\S+)", re.IGNORECASE)
_DROPPED = re.compile(rf"DROP\s+{_KIND}\s+(?:CONCURRENTLY\s+)?(?:IF\s+EXISTS\s+)?{_NAME}", re.IGNORECASE)
_STATE = b"""
SELECT CASE WHEN c.oid IS NULL THEN 'is missing' WHEN NOT i.indisvalid THEN 'is invalid'
    WHEN c.relkind = 'm' AND NOT c.relispopulated THEN 'is empty' END
FROM (SELECT to_regclass(%(name)s) AS oid) AS wanted
LEFT JOIN pg_class AS c ON c.oid = wanted.oid
LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
"""


def left(migrations: Sequence[Migration]) -> dict[str, str]:
    """Return the file that made each index and view which all migrations together leave, by its name.

    Left out is what running its file again would not mend: then more than that would happen.
    """
    made: dict[str, str] = {}
    for migration in migrations:
        for statement in migration.statements:
            if found := _MADE.match(statement.bare):
                made[found["name"]] = migration.file
            elif found := _RENAMED.match(statement.bare):
                made[found["to"]] = made.pop(found["name"], migration.file)
            elif found := _DROPPED.match(statement.bare):
                made.pop(found["name"], None)
    again = {migration.file for migration in migrations if _can_run_again(migration)}
    return {name: file for name, file in made.items() if file in again}


def lost(connection: Connection, migrations: Sequence[Migration]) -> dict[str, list[str]]:
    """Return, by file, what of the migrations' objects is no longer there, or no longer of use."""
    found: dict[str, list[str]] = {}
    for name, file in left(migrations).items():
        row = connection.execute(_STATE, {"name": name}).fetchone()
        if row and row[0]:
            found.setdefault(file, []).append(f"{name} {row[0]}")
    return found


def _can_run_again(migration: Migration) -> bool:
    """Say whether running a file again does no more than build what is missing."""
    concurrent = all(indexes.parse(statement.bare) for statement in migration.statements)
    return migration.version is None or (not migration.transactional and concurrent)
