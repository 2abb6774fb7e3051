"""The one session with the server: reused, guarded by timeouts on the server and a deadline on this side."""

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

Row = dict[str, Any]
Connection = psycopg.Connection[Row]


class Unreachable(Exception):  # noqa: N818 - it is shown to people as it is
    """Why there is no session with the server."""


@dataclass(frozen=True)
class Limits:
    """What a transaction may take, in seconds, enforced by the server."""

    statement: float
    lock: float


@dataclass(frozen=True)
class Facts:
    """What a collector's needs are held against: rights, and the extension's place and columns (`view.column`)."""

    has_role: bool
    schema: str | None
    columns: frozenset[str]


_FACTS = b"""
SELECT
    (SELECT bool_and(pg_has_role(rolname, 'USAGE')) FROM pg_roles WHERE rolname = %(role)s) AS has_role,
    (SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
     WHERE e.extname = %(extension)s) AS schema,
    ARRAY(
        SELECT c.relname || '.' || a.attname
        FROM pg_extension AS e
        JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
        JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE e.extname = %(extension)s
    ) AS columns
"""


class Session:
    """At most one connection; used by one thread at a time, aborted by any."""

    def __init__(self, dsn: str, password_file: Path | None = None) -> None:
        self._dsn = dsn
        self._password_file = password_file
        self._connection: Connection | None = None
        self._guard = threading.Lock()

    def open(self, deadline: float) -> Connection:
        """Return a connection that answered just now, or raise Unreachable; `deadline` is on the monotonic clock."""
        if self._connection is not None:
            try:
                self._connection.execute(b"SELECT 1")
            except psycopg.OperationalError:
                # The server restarted or a firewall dropped the idle session: connect anew in the same scrape.
                self.close()
            else:
                return self._connection
        connection = self._connect(deadline)
        with self._guard:
            self._connection = connection
        return connection

    def _connect(self, deadline: float) -> Connection:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise Unreachable("the time was over before a connection was made")
        parameters: dict[str, Any] = {}
        try:
            if self._password_file:
                parameters["password"] = self._password_file.read_text().rstrip("\n")
            return psycopg.connect(
                self._dsn,
                **parameters,
                fallback_application_name="pgstat_exporter",
                connect_timeout=math.ceil(seconds),
                client_encoding="utf8",
                autocommit=True,
                # Behind a transaction-mode pooler the next transaction may meet another server process.
                prepare_threshold=None,
                row_factory=dict_row,
            )
        except (psycopg.Error, OSError) as error:
            raise Unreachable(one_line(error)) from None

    @contextlib.contextmanager
    def transaction(self, limits: Limits, schema: str | None = None) -> Iterator[Connection]:
        """Open one READ ONLY transaction under these limits; names resolve in pg_catalog, then in `schema`."""
        connection = self._connection
        if connection is None:
            raise Unreachable("the connection was lost")
        connection.execute(_begin(limits, schema))
        try:
            yield connection
        except BaseException:
            # A broken session must not hide what broke it.
            with contextlib.suppress(psycopg.Error):
                connection.execute(b"ROLLBACK")
            raise
        connection.execute(b"COMMIT")

    def alive(self) -> bool:
        """Return whether the session can still be used."""
        return self._connection is not None and not self._connection.closed

    def server(self) -> int:
        """Return the server's major version."""
        return self._connection.info.server_version // 10000 if self._connection else 0

    def describe(self) -> str:
        """Return in words what the session is connected to, without secrets."""
        if self._connection is None:
            return "not connected"
        info = self._connection.info
        version = info.parameter_status("server_version")
        return f"PostgreSQL {version}, database {info.dbname}, user {info.user}, {info.host or 'local'}:{info.port}"

    def abort(self) -> None:
        """End what the session is doing, from another thread, even when the server no longer reacts."""
        # Cancelling would need the server's help; a socket that is shut down ends libpq's wait at once.
        with self._guard, contextlib.suppress(psycopg.Error, OSError):
            if self._connection is not None:
                with socket.socket(fileno=os.dup(self._connection.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the session if there is one."""
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


def facts(connection: Connection, role: str | None, extension: str | None) -> Facts:
    """Return what the session's role may do and what the extension offers; both may be None."""
    row = connection.execute(_FACTS, {"role": role, "extension": extension}).fetchone()
    if row is None:
        raise Unreachable("the catalog gave no answer")
    return Facts(role is None or bool(row["has_role"]), row["schema"], frozenset(row["columns"]))


def limit_statement(connection: Connection, seconds: float) -> None:
    """Give the next statement of the open transaction this much time on the server."""
    connection.execute(_set({"statement_timeout": _milliseconds(seconds)}))


def _begin(limits: Limits, schema: str | None) -> sql.Composed:
    # SELECT set_config() and not SET LOCAL: pg_stat_statements would keep each SET with its varying figure apart.
    settings = {
        "statement_timeout": _milliseconds(limits.statement),
        "lock_timeout": _milliseconds(limits.lock),
        "search_path": f"pg_catalog, {_identifier(schema)}" if schema else "pg_catalog",
        "jit": "off",
        "max_parallel_workers_per_gather": "0",
    }
    return sql.SQL("BEGIN READ ONLY; {}").format(_set(settings))


def _set(settings: dict[str, str]) -> sql.Composed:
    calls = [sql.SQL("pg_catalog.set_config({}, {}, true)").format(name, value) for name, value in settings.items()]
    return sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls))


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def one_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
