"""The two sessions of a run: an idle one that holds the lock and watches, and one that works."""

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg.rows import dict_row

from messwarte_migrate import MigrationError
from messwarte_migrate.history import Connection

# "MESS" as a number: the first half of our advisory locks' keys.
KEY = 0x4D455353
_RUNNER, _WORK = 1, 2
_POLL = 0.25
_QUIET = 2.0
_REPEAT = 10.0

_HOLDER = b"""
SELECT l.pid, coalesce(a.state, 'unknown') AS state, coalesce(left(a.query, 60), '') AS query,
    coalesce(extract(epoch FROM clock_timestamp() - a.backend_start), 0)::int AS seconds
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = %(key)s AND l.objid = %(which)s AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_WATCH = b"""
SELECT p.phase, p.blocks_done, p.blocks_total, p.lockers_done, p.lockers_total,
    (SELECT string_agg(
        format('process %%s (%%s, %%s, %%s for %%s s)', b.pid, coalesce(b.usename, '?'),
            coalesce(nullif(b.application_name, ''), 'unnamed'), coalesce(b.state, b.backend_type, '?'),
            extract(epoch FROM clock_timestamp() - coalesce(b.state_change, b.backend_start))::int), ', ')
     FROM pg_stat_activity AS b WHERE b.pid = ANY (pg_blocking_pids(a.pid))) AS blockers
FROM pg_stat_activity AS a
LEFT JOIN pg_stat_progress_create_index AS p ON p.pid = a.pid
WHERE a.pid = %(pid)s AND (a.wait_event_type = 'Lock' OR p.pid IS NOT NULL)
"""


def connect(dsn: str) -> Connection:
    """Return a session outside of transactions, or raise MigrationError."""
    try:
        connection = psycopg.connect(
            dsn, autocommit=True, fallback_application_name="messwarte_migrate", prepare_threshold=None
        )
    except psycopg.Error as error:
        raise MigrationError(f"cannot connect: {' '.join(str(error).split())}") from None
    prepare(connection)
    return connection


def prepare(connection: Connection) -> None:
    """Put a session's settings back; a migration may have changed them."""
    connection.execute(b"RESET ROLE; RESET ALL; SET idle_session_timeout = 0; SET client_min_messages = warning")
    # When this process is killed, the server shall end what it had begun, not finish it unseen.
    connection.execute(b"SET client_connection_check_interval = '1s'")


def say(text: str) -> None:
    """Tell on standard error what goes on; standard output is for results."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def pauses(attempts: int) -> Iterator[float]:
    """Yield the seconds to wait between attempts: doubling, at most 2 s, spread so that two runs part."""
    for attempt in range(attempts - 1):
        yield min(2.0, 0.2 * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class Run:
    """Both sessions, with the lock held; a context manager."""

    def __init__(self, dsn: str, wait: float) -> None:
        self._wait = wait
        self.watcher = connect(dsn)
        self.work = connect(dsn)

    def __enter__(self) -> "Run":
        try:
            # The second lock outlives a killed run for as long as the server still works for it.
            self._acquire(self.watcher, _RUNNER, "another run")
            self._acquire(self.work, _WORK, "what a killed run had begun")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.work.close()
        self.watcher.close()

    def _acquire(self, connection: Connection, which: int, whose: str) -> None:
        # Polled: a session that waits inside pg_advisory_lock holds a snapshot, and CREATE INDEX CONCURRENTLY in
        # the run that it waits for would wait for that snapshot.
        started = time.monotonic()
        said = False
        while not _try_lock(connection, which):
            waited = time.monotonic() - started
            if waited >= self._wait:
                raise MigrationError(f"{whose} is not over after {waited:.0f} s: {_holder(connection, which)}")
            if waited >= _QUIET and not said:
                say(f"waiting for {whose}: {_holder(connection, which)}")
                said = True
            time.sleep(_POLL)

    def check(self) -> None:
        """Raise MigrationError when the session that holds the lock was lost."""
        try:
            self.watcher.execute(b"SELECT 1")
        except psycopg.Error as error:
            raise MigrationError(f"the session that holds the runner's lock was lost: {error}") from None

    @contextlib.contextmanager
    def watched(self, what: str) -> Iterator[Callable[[], str]]:
        """Tell, while the block runs and takes longer, how far it is and for whom it waits.

        Yields a function that returns who was last seen in the way.
        """
        watch = _Watch(self.watcher, self.work.info.backend_pid, what)
        thread = threading.Thread(target=watch.run, daemon=True)
        thread.start()
        try:
            yield lambda: watch.blockers
        finally:
            watch.over.set()
            thread.join()


def _try_lock(connection: Connection, which: int) -> bool:
    row = connection.execute(b"SELECT pg_try_advisory_lock(%s::int, %s::int)", (KEY, which)).fetchone()
    return bool(row and row[0])


def holder(connection: Connection) -> dict[str, Any] | None:
    """Return who holds the runner's lock: pid, state, query, seconds; None when nobody does."""
    for which in (_RUNNER, _WORK):
        with connection.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(_HOLDER, {"key": KEY, "which": which}).fetchone()
        if found:
            return found
    return None


def _holder(connection: Connection, which: int) -> str:
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_HOLDER, {"key": KEY, "which": which}).fetchone()
    return "process {pid}, connected for {seconds} s, {state}: {query}".format(**found) if found else "it ends just now"


class _Watch:
    """Looks at the working session from the other one, and tells when it takes long."""

    def __init__(self, connection: Connection, pid: int, what: str) -> None:
        self.over = threading.Event()
        self.blockers = ""
        self._connection, self._pid, self._what = connection, pid, what

    def run(self) -> None:
        """Look until `over`; an error here is none of the work's."""
        started = told = time.monotonic()
        last = ""
        with contextlib.suppress(psycopg.Error):
            while not self.over.wait(_POLL):
                text = self._look()
                now = time.monotonic()
                if text and now - started > _QUIET and (text != last or now - told > _REPEAT):
                    say(f"{self._what}: {text} ({now - started:.0f} s)")
                    last, told = text, now

    def _look(self) -> str:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            seen = cursor.execute(_WATCH, {"pid": self._pid}).fetchone()
        if not seen:
            return ""
        text = seen["phase"] or "waiting for a lock"
        if seen["blocks_total"] and not seen["lockers_total"]:
            text += f", {100 * seen['blocks_done'] // seen['blocks_total']} %"
        if seen["lockers_total"]:
            text += f", {seen['lockers_done']} of {seen['lockers_total']} gone"
        if seen["blockers"]:
            self.blockers = seen["blockers"]
            text += f"; in the way: {self.blockers}"
        return str(text)
