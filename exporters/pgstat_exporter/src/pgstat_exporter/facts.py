"""What a session's role and database offer: the roles that are its own, and extensions with their columns."""

from collections.abc import Collection
from dataclasses import dataclass

from psycopg import sql

from pgstat_exporter.session import Session

_ROLES = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY ({}) AND pg_has_role(oid, 'USAGE')"
_EXTENSIONS = """
SELECT
    e.extname::text AS name,
    n.nspname::text AS schema,
    has_schema_privilege(n.oid, 'USAGE') AS usable,
    (
        SELECT string_agg(c.relname || '.' || a.attname, ' ')
        FROM pg_depend AS d
        JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
    ) AS columns
FROM pg_extension AS e
JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname = ANY ({})
"""


@dataclass(frozen=True)
class Extension:
    """Where an extension is, whether we may use it there, and its columns (`view.column`)."""

    schema: str
    usable: bool
    columns: frozenset[str]


@dataclass(frozen=True)
class Facts:
    """What a collector's needs are held against: the roles that are ours, and the extensions of this database."""

    roles: frozenset[str]
    extensions: dict[str, Extension]


def facts(session: Session, roles: Collection[str], extensions: Collection[str]) -> Facts:
    """Return which of these roles the session's role has, and which of these extensions its database has."""
    has = session.rows(_of(_ROLES, roles))[1] if roles else []
    there = session.rows(_of(_EXTENSIONS, extensions))[1] if extensions else []
    return Facts(
        frozenset(role for (role,) in has if role),
        {
            name: Extension(schema, usable == "t", frozenset((columns or "").split()))
            for name, schema, usable, columns in there
            if name and schema
        },
    )


def _of(query: str, names: Collection[str]) -> str:
    return sql.SQL(query).format(sorted(names)).as_string()
