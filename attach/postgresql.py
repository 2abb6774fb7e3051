"""An existing PostgreSQL gets a role that may measure it: looked at first, then changed in one transaction."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from attach import AttachError
from pgstat_exporter import content
from pgstat_exporter.grants import Grant, needed, quoted

ROLE = "messwarte_monitor"
EXTENSION = "pg_stat_statements"
SUPPORTED = range(15, 19)
# A fact about the role, what it has to hold, and the option that brings it there.
_OPTIONS: dict[str, tuple[Any, str]] = {
    "rolsuper": (False, "NOSUPERUSER"),
    "rolcreatedb": (False, "NOCREATEDB"),
    "rolcreaterole": (False, "NOCREATEROLE"),
    "rolreplication": (False, "NOREPLICATION"),
    "rolbypassrls": (False, "NOBYPASSRLS"),
    "rolcanlogin": (True, "LOGIN"),
    "rolconnlimit": (5, "CONNECTION LIMIT 5"),
    "expires": (False, "VALID UNTIL 'infinity'"),
}
_READ_ONLY = "default_transaction_read_only=on"
# Where a statement with a password's verifier could be kept.
_SILENT = {
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_min_error_statement": "panic",
    "pg_stat_statements.track_utility": "off",
}
_FACTS = """
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby,
    current_database() AS database, r.oid AS role, r.rolconfig AS config, r.rolsuper, r.rolcreatedb, r.rolcreaterole,
    r.rolreplication, r.rolbypassrls, r.rolcanlogin, r.rolconnlimit,
    coalesce(r.rolvaliduntil < 'infinity', false) AS expires,
    has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS sees_passwords,
    EXISTS (SELECT FROM pg_settings WHERE name = 'pg_stat_statements.max') AS preloaded,
    EXISTS (SELECT FROM pg_available_extensions WHERE name = %(extension)s) AS available,
    (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = %(extension)s) AS installed,
    (SELECT n.nspname FROM pg_namespace AS n
        LEFT JOIN pg_extension AS e ON e.extnamespace = n.oid AND e.extname = %(extension)s
        WHERE e.oid IS NOT NULL OR n.nspname = 'public' ORDER BY e.oid LIMIT 1) AS schema
FROM (VALUES (1)) AS one LEFT JOIN pg_roles AS r ON r.rolname = %(role)s
"""
# What the role was given by name, and not through PUBLIC.
_GIVEN = """
SELECT 'role' AS kind, r.rolname::text AS name FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.roleid
WHERE m.member = %(oid)s
UNION ALL
SELECT 'database', d.datname FROM pg_database AS d, aclexplode(d.datacl) AS a
WHERE a.grantee = %(oid)s AND a.privilege_type = 'CONNECT'
UNION ALL
SELECT 'schema', n.nspname FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
WHERE a.grantee = %(oid)s AND a.privilege_type = 'USAGE'
"""


@dataclass(frozen=True)
class Step:
    """A statement, and how it is shown: without the password's verifier."""

    statement: sql.Composed
    shown: str

    @classmethod
    def of(cls, text: str) -> "Step":
        """Return a statement that anybody may read."""
        return cls(sql.Composed([sql.SQL(text)]), text)


class Server:
    """A session of an administrator. Raises AttachError for a server that cannot be attached."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        row = self._rows(_FACTS, role=ROLE, extension=EXTENSION)
        self.facts = row[0]
        major = connection.info.server_version // 10000
        if major not in SUPPORTED:
            raise AttachError(
                f"this is PostgreSQL {major}; supported are {SUPPORTED[0]} to {SUPPORTED[-1]}: nothing was changed"
            )
        if self.facts.standby:
            raise AttachError(
                "this is a standby, which takes no changes: name its primary; the role comes here by itself"
            )

    @property
    def tls(self) -> bool:
        """Whether the session is encrypted."""
        return bool(self._connection.pgconn.ssl_in_use)

    def steps(self, verifier: str, *, known: bool, create_extension: bool) -> list[Step]:
        """Return what is missing; `known` says that the password opens the role already, where that cannot be read."""
        steps = [*self._role(verifier, known)]
        if create_extension and not self.facts.installed and self.facts.preloaded:
            place = f" SCHEMA {quoted(self.facts.schema)}" if self.facts.schema else ""
            steps.append(Step.of(f"CREATE EXTENSION {EXTENSION}{place}"))
        given = self._given()
        steps += [Step.of(one.sql(ROLE)) for one in self.grants() if (one.kind, one.name) not in given]
        return steps

    def grants(self) -> list[Grant]:
        """Return what `pgstat_exporter grants` prints for this database."""
        return needed(content.load().values(), self.facts.database, self.facts.schema)

    def removal(self) -> list[Step]:
        """Return what takes role and grants away."""
        if self.facts.role is None:
            return []
        kinds = sorted(self._given())
        steps = [Step.of(Grant(kind, name, "").revoking(ROLE)) for kind, name in kinds]
        return [*steps, Step.of(f"DROP ROLE {ROLE}")]

    def notices(self, *, create_extension: bool) -> list[str]:
        """Return what an operator has to know: what will be skipped, and what the role has beyond our grants."""
        facts, notices = self.facts, []
        extra = self._given() - {(one.kind, one.name) for one in self.grants()}
        if extra:
            names = ", ".join(f"{kind} {name}" for kind, name in sorted(extra))
            notices.append(f"{ROLE} has what Messwarte did not give it, and keeps it: {names}")
        if not facts.preloaded:
            notices.append(
                f"no figures of single statements: {EXTENSION} is not in shared_preload_libraries (to have them, add "
                "it, restart PostgreSQL when it suits you, and run this again); all else is measured"
            )
        elif not facts.installed and not create_extension:
            notices.append(
                f"no figures of single statements yet: run `CREATE EXTENSION {EXTENSION};` in database "
                f"{facts.database}, or this again with --create-extension"
                + ("" if facts.available else " (its files are missing: install PostgreSQL's contrib package)")
            )
        return notices

    def run(self, steps: list[Step]) -> list[str]:
        """Run statements in one transaction that nothing logs; return what could not be kept out of the log."""
        step = None
        refused: list[str] = []
        self._connection.add_notice_handler(lambda said: refused.extend(_refusal(said)))
        try:
            with self._connection.transaction():
                loud = [name for name, value in _SILENT.items() if not self._set(name, value)]
                for step in steps:
                    self._connection.execute(step.statement)
                    if refused:
                        raise AttachError(f"nothing was changed: {step.shown}: {refused[0]}")
        except psycopg.Error as error:
            # Its own words: the whole message quotes the statement, and with it the verifier.
            words = [error.diag.message_primary, error.diag.message_detail, error.diag.message_hint]
            said = "; ".join(word for word in words if word) or type(error).__name__
            raise AttachError(f"nothing was changed: {step.shown if step else 'the session'}: {said}") from None
        return loud

    def _role(self, verifier: str, known: bool) -> Iterator[Step]:
        facts = self.facts
        if facts.role is None:
            yield _with_password(f"CREATE ROLE {ROLE} LOGIN CONNECTION LIMIT 5", verifier)
        else:
            options = [option for column, (right, option) in _OPTIONS.items() if getattr(facts, column) != right]
            if options:
                yield Step.of(f"ALTER ROLE {ROLE} {' '.join(options)}")
            if not self._has(verifier, known):
                yield _with_password(f"ALTER ROLE {ROLE}", verifier)
        if _READ_ONLY not in (facts.config or ()):
            yield Step.of(f"ALTER ROLE {ROLE} SET default_transaction_read_only = on")

    def _has(self, verifier: str, known: bool) -> bool:
        if not self.facts.sees_passwords:
            return known
        (row,) = self._rows("SELECT rolpassword AS stored FROM pg_authid WHERE rolname = %(role)s", role=ROLE)
        return bool(row.stored == verifier)

    def _given(self) -> set[tuple[Any, str]]:
        if self.facts.role is None:
            return set()
        return {(row.kind, row.name) for row in self._rows(_GIVEN, oid=self.facts.role)}

    def _set(self, name: str, value: str) -> bool:
        try:
            with self._connection.transaction():
                self._connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    def _rows(self, query: str, **values: Any) -> list[Any]:
        with self._connection.cursor(row_factory=namedtuple_row) as cursor:
            return cursor.execute(query.encode(), values).fetchall()


def _refusal(said: psycopg.errors.Diagnostic) -> list[str]:
    """Return the warning by which a server passes over a grant that is not the administrator's to give or take."""
    return [str(said.message_primary)] if said.sqlstate in {"01006", "01007"} else []


def _with_password(text: str, verifier: str) -> Step:
    return Step(
        sql.Composed([sql.SQL(f"{text} PASSWORD "), sql.Literal(verifier)]),
        f"{text} PASSWORD '(SCRAM-SHA-256 verifier)'",
    )
