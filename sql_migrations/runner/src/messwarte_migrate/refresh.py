"""Refreshing materialised views beside their readers, one run per view at a time, each noted in a log."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from messwarte_migrate import MigrationError, history
from messwarte_migrate.history import Connection
from messwarte_migrate.session import KEY, Run, connect, pauses

ATTEMPTS = 5
_STATEMENT_SECONDS = 1800
_KEPT_DAYS = 90
_VIEWS_KEY = KEY + 1

# A unique index serves CONCURRENTLY when it is valid, whole, and on plain columns.
_VIEWS = b"""
SELECT n.nspname AS schema, c.relname AS name, hashtext(format('%I.%I', n.nspname, c.relname)) AS lock,
    c.relispopulated AS populated,
    EXISTS (
        SELECT FROM pg_index AS i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
            AND i.indpred IS NULL AND i.indexprs IS NULL
    ) AS has_key
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND pg_has_role(c.relowner, 'USAGE') AND right(c.relname, 6) <> '__next'
ORDER BY n.nspname, c.relname
"""
_LOG = b"""
INSERT INTO messwarte.mv_refresh_log (view, started_at, seconds, rows, error)
VALUES (%(view)s, clock_timestamp() - make_interval(secs => %(seconds)s), %(seconds)s, %(rows)s, %(error)s)
"""
_PRUNE = b"DELETE FROM messwarte.mv_refresh_log WHERE view = %s AND started_at < now() - make_interval(days => %s)"


@dataclass(frozen=True)
class View:
    """A materialised view that this role may refresh."""

    lock: int
    schema: str
    name: str
    populated: bool
    has_key: bool

    @property
    def shown(self) -> str:
        """The name as people write it: without the schema when that is public."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Refreshed:
    """How one refresh went: `state` is refreshed, populated (for the first time), skipped or failed."""

    view: str
    state: str
    seconds: float
    rows: int | None = None
    error: str | None = None


def refresh(dsn: str, names: Sequence[str], lock_timeout: float, wait: float) -> Iterator[Refreshed]:
    """Refresh the named views, or all that this role owns, and yield how each went."""
    connection = connect(dsn)
    try:
        if not history.exists(connection):
            with Run(dsn, wait) as run:
                history.create(run.work)
        chosen = _choose(connection, names)
        settings = {"lock_timeout": int(lock_timeout * 1000), "statement_timeout": _STATEMENT_SECONDS * 1000}
        for name, milliseconds in settings.items():
            connection.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), milliseconds))
        for view in chosen:
            yield _guarded(connection, view)
    finally:
        connection.close()


def _choose(connection: Connection, names: Sequence[str]) -> list[View]:
    with connection.cursor(row_factory=class_row(View)) as cursor:
        views = {view.shown: view for view in cursor.execute(_VIEWS).fetchall()}
    wanted = [name.removeprefix("public.") for name in names]
    unknown = [name for name in wanted if name not in views]
    if unknown:
        there = ", ".join(views) or "none"
        raise MigrationError(f"{', '.join(unknown)}: no materialised view of this role; there are: {there}")
    return [views[name] for name in dict.fromkeys(wanted)] or list(views.values())


def _guarded(connection: Connection, view: View) -> Refreshed:
    key = (_VIEWS_KEY, view.lock)
    row = connection.execute(b"SELECT pg_try_advisory_lock(%s::int, %s::int)", key).fetchone()
    if not row or not row[0]:
        return Refreshed(view.shown, "skipped", 0.0, error="another refresh of it is running")
    try:
        return _timed(connection, view)
    finally:
        if not connection.closed:
            connection.execute(b"SELECT pg_advisory_unlock(%s::int, %s::int)", key)


def _timed(connection: Connection, view: View) -> Refreshed:
    started = time.monotonic()
    name = sql.Identifier(view.schema, view.name)
    rows: int | None = None
    error: str | None = None
    try:
        _run(connection, view, name)
        found = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
        rows = int(found[0]) if found else None
    except (psycopg.Error, MigrationError) as problem:
        if connection.closed:
            raise
        error = " ".join(str(problem).split())
    seconds = time.monotonic() - started
    values = {"view": view.shown, "seconds": seconds, "rows": rows, "error": error}
    connection.execute(_LOG, values)
    connection.execute(_PRUNE, (view.shown, _KEPT_DAYS))
    if error:
        return Refreshed(view.shown, "failed", seconds, error=error)
    return Refreshed(view.shown, "refreshed" if view.populated else "populated", seconds, rows)


def _run(connection: Connection, view: View, name: sql.Identifier) -> None:
    if view.populated and not view.has_key:
        raise MigrationError(
            "it has no unique index on plain columns, without which its readers would wait for the refresh: "
            "create one by a migration"
        )
    # The first population has no readers to spare, and PostgreSQL refuses it CONCURRENTLY.
    how = sql.SQL("CONCURRENTLY ") if view.populated else sql.SQL("")
    statement = sql.SQL("REFRESH MATERIALIZED VIEW {}{}").format(how, name)
    for pause in [*pauses(ATTEMPTS), None]:
        try:
            connection.execute(statement)
            break
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if pause is None:
                raise
        time.sleep(pause)
    # A refresh CONCURRENTLY leaves dead rows faster than autovacuum comes by.
    connection.execute(sql.SQL("VACUUM (ANALYZE, SKIP_LOCKED) {}").format(name))
