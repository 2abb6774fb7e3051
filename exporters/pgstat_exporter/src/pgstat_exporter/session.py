"""A session with the server: reused, guarded by timeouts on the server and a deadline on this side."""

import contextlib
import hashlib
import math
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.pq import Escaping
from psycopg.pq.abc import PGresult
from psycopg.rows import dict_row

from pgstat_exporter.exposition import Row

Connection = psycopg.Connection[dict[str, Any]]


_NOTHING: Mapping[str, str] = {}


class Unreachable(Exception):  # noqa: N818 - it is shown to people as it is
    """Why there is no session with the server."""


_LOST = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement)


class BadStatement(Exception):  # noqa: N818 - it is shown to people with its place
    """What the server does not understand, and how many characters of the query come before it."""

    def __init__(self, error: psycopg.Error, position: int) -> None:
        super().__init__(one_line(error))
        self.position = position


class LostPrepared(Exception):  # noqa: N818 - it tells to go on without
    """What was prepared cannot be used: the server process is another one, or a table has changed."""


@dataclass(frozen=True)
class Limits:
    """What a transaction may take, in seconds, enforced by the server."""

    statement: float
    lock: float


_ESCAPED = re.compile(r"\\(.)")
_MEANT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Session:
    """At most one connection; used by one thread at a time, aborted by any."""

    def __init__(self, dsn: str, password_file: str | None = None) -> None:
        self._dsn = dsn
        self._password_file = password_file
        self._connection: Connection | None = None
        # Names of the statements that are prepared on the connection, and of those that it cannot keep.
        self._prepared: set[str] = set()
        self._changed: set[str] = set()
        self._prepares = True
        # What a transaction begins with, and a statement's limits, travel with the statement: less to wake up for.
        self._before = b""
        # When the time of the open transaction's statements is over.
        self._end = 0.0
        self._guard = threading.Lock()

    def open(self, deadline: float) -> Connection:
        """Return a connection that answered just now, or raise Unreachable; `deadline` is on the monotonic clock."""
        if self._connection is not None:
            try:
                # It may have fallen silent: half of the time is left for another.
                with self.cut_after((deadline - time.monotonic()) / 2):
                    # Not SELECT: a standby refuses it where the default isolation level is SERIALIZABLE.
                    self._connection.execute(b"SHOW transaction_isolation")
            except psycopg.Error:
                # The server restarted, a firewall dropped the idle session: connect anew in the same scrape.
                self.close()
            else:
                return self._connection
        connection = self._connect(deadline)
        with self._guard:
            self._connection = connection
            self._prepared.clear()
            self._changed.clear()
        return connection

    def _connect(self, deadline: float) -> Connection:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise Unreachable("the time was over before a connection was made")
        parameters: dict[str, Any] = {}
        try:
            if self._password_file:
                parameters["password"] = _password(Path(self._password_file))
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
            # psycopg says first that the connection failed, as those do who show this.
            raise Unreachable(one_line(error).removeprefix("connection failed: ")) from None

    @contextlib.contextmanager
    def transaction(self, limits: Limits, schema: str | None = None) -> Iterator[None]:
        """Open one READ ONLY transaction, for whose statements together the limits hold.

        Names resolve in pg_catalog, then in `schema`.
        """
        self._before = _begin(self._wire(), limits, schema)
        self._end = time.monotonic() + limits.statement
        try:
            yield
            # Where nothing was asked there is no transaction.
            if not self._before:
                self._wire().execute(b"COMMIT")
        except BaseException:
            # A broken session must not hide what broke it.
            with contextlib.suppress(psycopg.Error, Unreachable):
                self._wire().execute(b"ROLLBACK")
            raise

    def rows(
        self, query: str, *, few: bool = True, settings: Mapping[str, str] = _NOTHING
    ) -> tuple[list[str], list[Row]]:
        """Return a query's column names and rows, each value as PostgreSQL writes it, in the open transaction.

        Where rows are `few`, the server parses and plans the query once and not every time. Many come by COPY.
        Settings end with the transaction. Raises TimeoutError when the transaction's time is over, and LostPrepared
        when what was prepared cannot be used; another try goes without.
        """
        self._add_limits(settings)
        if few and self._prepares and (name := _name(query)) not in self._changed:
            return self._execute_prepared(name, query)
        self._send_before()
        return _copy_out(self._wire(), query)

    def fetch(self, query: bytes, parameters: Mapping[str, Any] = _NOTHING) -> list[dict[str, Any]]:
        """Return a query's rows as Python's values, in the open transaction."""
        self._add_limits()
        self._send_before()
        return self._wire().execute(query, parameters or None).fetchall()

    def prepare_no_more(self) -> None:
        """Prepare nothing from now on."""
        self._prepares = False

    def _wire(self) -> Connection:
        if self._connection is None:
            raise Unreachable("the connection was lost")
        return self._connection

    def _add_limits(self, settings: Mapping[str, str] = _NOTHING) -> None:
        """Have settings, and the time that is left for another statement than the first, travel with a statement."""
        if not self._before:
            left = self._end - time.monotonic()
            if left <= 0:
                raise TimeoutError("its time, or the scrape's, was over")
            settings = {"statement_timeout": _milliseconds(left), **settings}
        if settings:
            self._before += _set(self._wire(), settings)

    def _send_before(self) -> None:
        before, self._before = self._before, b""
        if before:
            self._wire().execute(before)

    def _execute_prepared(self, name: str, query: str) -> tuple[list[str], list[Row]]:
        head = f"PREPARE {name} AS\n"
        try:
            # Where a statement has to be planned anew, the server points into its text, too.
            with _places(len(head)):
                if name not in self._prepared:
                    self._send_before()
                    self._wire().execute(f"{head}{query}".encode())
                    self._prepared.add(name)
                    # What preparing took, waiting for locks above all, is the statement's own time.
                    self._add_limits()
                before, self._before = self._before, b""
                answer = self._wire().execute(before + f"EXECUTE {name}".encode())
        except psycopg.errors.FeatureNotSupported as error:
            # What it was made for has changed its columns.
            self._changed.add(name)
            raise LostPrepared(one_line(error)) from None
        except _LOST as error:
            # A pooler gives each transaction a server process of its own.
            self.prepare_no_more()
            raise LostPrepared(one_line(error)) from None
        while answer.nextset():
            pass
        result = answer.pgresult
        if result is None:
            raise Unreachable("the server gave no answer")
        names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
        return names, [_row(result, number) for number in range(result.ntuples)]

    def alive(self) -> bool:
        """Return whether the session can still be used."""
        return self._connection is not None and not self._connection.closed

    def server(self) -> int:
        """Return the server's major version."""
        return self._connection.info.server_version // 10000 if self._connection else 0

    def database(self) -> str | None:
        """Return the name of the database that the session is connected to."""
        return self._connection.info.dbname if self._connection and not self._connection.closed else None

    def describe(self) -> str:
        """Return in words what the session is connected to, without secrets."""
        if self._connection is None:
            return "not connected"
        info = self._connection.info
        version = info.parameter_status("server_version")
        return f"PostgreSQL {version}, database {info.dbname}, user {info.user}, {info.host or 'local'}:{info.port}"

    @contextlib.contextmanager
    def cut_after(self, seconds: float) -> Iterator[None]:
        """Abort what the block does in the session when it takes longer than that."""
        watchdog = threading.Timer(seconds, self.abort)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

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


def _name(query: str) -> str:
    # It tells the text, so that whatever process has a statement of this name has this one.
    return f"pgstat_{hashlib.sha256(query.encode()).hexdigest()[:32]}"


def _copy_out(connection: Connection, query: str) -> tuple[list[str], list[Row]]:
    """Return a query's column names and rows, each value as PostgreSQL writes it.

    Ten times faster than fetching: psycopg without its C part spends microseconds on each value of a row.
    """
    head = "COPY (\n"
    statement = f"{head}{query}\n) TO STDOUT WITH (HEADER)".encode()
    with _places(len(head)), connection.cursor() as cursor, cursor.copy(statement) as copy:
        names, *rows = [_split(_decoded(bytes(line))) for line in copy]
    return [name or "" for name in names], rows


@contextlib.contextmanager
def _places(before: int) -> Iterator[None]:
    """Raise BadStatement for what the server points at in a query with so many characters before it."""
    try:
        yield
    except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
        if error.diag.statement_position is None or isinstance(error, _LOST):
            raise
        raise BadStatement(error, int(error.diag.statement_position) - 1 - before) from None


def _row(result: PGresult, number: int) -> Row:
    values = (result.get_value(number, column) for column in range(result.nfields))
    return [None if value is None else _decoded(value) for value in values]


def _decoded(value: bytes) -> str:
    # A database that is not in UTF-8 can give names to what all databases see (databases, roles), as its bytes are.
    return value.decode(errors="replace")


def _split(line: str) -> Row:
    values: list[str | None] = list(line.removesuffix("\n").split("\t"))
    if "\\" in line:
        return [None if value == "\\N" else _ESCAPED.sub(_unescape, value or "") for value in values]
    return values


def _unescape(found: re.Match[str]) -> str:
    return _MEANT.get(found[1], found[1])


def _begin(connection: Connection, limits: Limits, schema: str | None) -> bytes:
    settings = {
        "statement_timeout": _milliseconds(limits.statement),
        "search_path": f"pg_catalog, {_identifier(schema)}" if schema else "pg_catalog",
        "jit": "off",
        # The role's own setting may cut off digits.
        "extra_float_digits": "1",
        # The collectors' SQL is written for it.
        "standard_conforming_strings": "on",
        "max_parallel_workers_per_gather": "0",
    }
    # A standby refuses the isolation level SERIALIZABLE, which may be the default. SET needs no catalog: somebody may
    # hold a lock on the one that set_config() is looked up in.
    begin = f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL lock_timeout = '{_milliseconds(limits.lock)}'; "
    return begin.encode() + _set(connection, settings)


def _set(connection: Connection, settings: Mapping[str, str]) -> bytes:
    # SELECT set_config(), as pg_stat_statements would keep each SET with its varying figure apart.
    # Not composed by psycopg.sql, which takes longer for it than the server.
    quote = Escaping(connection.pgconn).escape_literal
    calls = [b"pg_catalog.set_config('%b', %b, true)" % (n.encode(), quote(v.encode())) for n, v in settings.items()]
    return b"SELECT " + b", ".join(calls) + b"; "


def _password(path: Path) -> str:
    try:
        return path.read_text().rstrip("\n")
    except OSError as error:
        raise Unreachable(f"password_file {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        # What Python says of it would repeat a part of the password.
        raise Unreachable(f"{path}: is not encoded in UTF-8") from None


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def one_line(error: BaseException) -> str:
    """Return an error's message on one line; of what a server says, without the place, which is another in a file."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((primary or str(error)).split()) or type(error).__name__
