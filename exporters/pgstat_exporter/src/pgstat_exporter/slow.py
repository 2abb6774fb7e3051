"""The slow tier: collectors that are run in the background, database by database, and answer from their last run."""

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from psycopg.conninfo import make_conninfo

from pgstat_exporter.collect import NO_DATABASE, Memory, Outcome, Pass
from pgstat_exporter.config import Enabled, Target
from pgstat_exporter.grants import quoted
from pgstat_exporter.session import Limits, Session, Unreachable, one_line

# A collector that failed is tried again after so many seconds, or after its own interval when that is shorter.
_RETRY = 30.0
# The part of that time by which it may be early.
_EARLY = 0.25
_CONNECT = 10.0
# What the server's own timeout may be late before the connection is cut.
_GRACE = 5.0
_DISCOVERY = """
SELECT datname::text AS datname, has_database_privilege(oid, 'CONNECT') AS may_connect
FROM pg_database
-- -2 marks what an interrupted DROP DATABASE left behind; nobody can connect to it.
WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2
"""
PENDING = Outcome(0.0, skipped="pending")


@dataclass
class Entry:
    """A collector's state in one database; times on the monotonic clock."""

    enabled: Enabled
    database: str
    memory: Memory
    last: Outcome = PENDING
    due: float = 0.0
    # When it may be run beside what is due, which spares the server a connection.
    welcome: float = 0.0
    read: float = 0.0
    _good: Outcome | None = None

    @property
    def place(self) -> str:
        """The collector's name, and where it runs."""
        return f"{self.enabled.name} in {self.database}" if self.database else self.enabled.name

    def update(self, outcome: Outcome) -> None:
        """Take a run's outcome. After a failure, the last good data stay until they are two intervals old."""
        now = time.monotonic()
        every = self.enabled.every or 0.0
        self.last = outcome
        wait = min(every, _RETRY) if outcome.failed else every
        self.due, self.welcome = now + wait, now + wait * (1 - _EARLY)
        if outcome.ok:
            self._good, self.read = outcome, now
        elif outcome.skipped:
            self._good = None

    def good(self) -> Outcome | None:
        """Return the data that are to be shown."""
        age = time.monotonic() - self.read
        return self._good if age <= 2 * (self.enabled.every or 0.0) + _RETRY else None


@dataclass
class SlowTier:
    """Runs slow collectors of one server with at most one connection.

    The one to the DSN's database stays, as it takes the server longer to connect than to answer; others would be in the
    way of who wants to drop their database.
    """

    target: Target
    collectors: Sequence[Enabled]
    first_pass: threading.Event = field(default_factory=threading.Event)
    _entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _wake: threading.Event = field(default_factory=threading.Event)
    _out_of_reach: bool = False
    _thread: threading.Thread | None = None
    _home: Session = field(init=False)
    _session: Session | None = None

    def __post_init__(self) -> None:
        self._home = Session(self.target.dsn, self.target.password_file)

    def start(self) -> None:
        """Begin to work in the background."""
        if not self.collectors:
            self.first_pass.set()
            return
        self._add(NO_DATABASE)
        self._thread = threading.Thread(target=self._work, daemon=True, name="slow")
        self._thread.start()

    def stop(self) -> None:
        """End, whatever is under way."""
        self._stop.set()
        self._wake.set()
        if session := self._session:
            session.abort()
        if self._thread:
            self._thread.join(1)

    def answers_again(self) -> None:
        """Read at once what could not be read because the server was out of reach; the first pass begins anew."""
        if self._out_of_reach:
            self._out_of_reach = False
            self.first_pass.clear()
            self._wake.set()

    def died(self) -> bool:
        """Return whether it ended without having been told to."""
        return self._thread is not None and not self._thread.is_alive() and not self._stop.is_set()

    def entries(self) -> list[Entry]:
        """Return the collectors' states, those of one collector next to each other."""
        return [entry for _, entry in sorted(self._entries.copy().items())]

    def run_due(self) -> None:
        """Run what is due, in every database, and forget databases that are gone."""
        self._add(NO_DATABASE)
        databases = self._run(NO_DATABASE)
        if databases is None:
            # What is due in the server's databases fails without being tried.
            now = time.monotonic()
            for entry in (one for one in self.entries() if one.due <= now):
                entry.update(Outcome(0.0, failed=True, detail="the server was out of reach"))
            return
        # The one that we are in comes first; to enter another is to leave it.
        for name, may_connect in sorted(databases.items(), key=lambda one: one[0] != self._home.database()):
            self._add(name)
            if may_connect:
                self._run(name)
            else:
                for entry in self._of(name):
                    advice = f"run GRANT CONNECT ON DATABASE {quoted(name)} TO it"
                    entry.update(Outcome(0.0, skipped="privilege", detail=f"the role may not enter it: {advice}"))
        gone = self._seen - databases.keys()
        self._seen = set(databases)
        if gone:
            self._forget(gone)
            # What is read of all databases at once shows them still.
            for entry in self._of(NO_DATABASE):
                entry.due = entry.welcome = 0.0

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self.run_due()
                if not self._wake.is_set():
                    self.first_pass.set()
                due = min((entry.due for entry in self.entries()), default=0.0)
                if self._wake.wait(min(max(1.0, due - time.monotonic()), _RETRY * 2)):
                    self._wake.clear()
                    for entry in self.entries():
                        if entry.last.failed:
                            entry.due = entry.welcome = 0.0
        finally:
            self._home.close()

    def _add(self, database: str) -> None:
        for one in self.collectors:
            if one.collector.per_database == (database != NO_DATABASE):
                self._entries.setdefault((one.name, database), Entry(one, database, Memory.of(one)))

    def _of(self, database: str) -> list[Entry]:
        return [entry for entry in self.entries() if entry.database == database]

    def _due(self, database: str) -> list[Entry]:
        """Return what is due in a database, and what may as well be run with it."""
        now = time.monotonic()
        entries = self._of(database)
        some = any(entry.due <= now for entry in entries)
        return [entry for entry in entries if some and entry.welcome <= now]

    def _run(self, database: str) -> dict[str, bool] | None:
        """Run what is due in a database; of the DSN's own, return the databases that are wanted, None if it is down."""
        due = self._due(database)
        if database != NO_DATABASE and not due:
            return None
        self._session = session = self._session_with(database)
        found: dict[str, bool] | None = None
        failed: list[tuple[Entry, Outcome]] = []
        try:
            session.open(time.monotonic() + _CONNECT)
            found = None if database else self._discover(session)
            for entry, outcome in self._outcomes(session, due, database):
                if outcome.failed:
                    failed.append((entry, outcome))
                else:
                    entry.update(outcome)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the thread and with it the service
            outcome = Outcome(0.0, failed=True, detail=one_line(error))
            failed = [(entry, outcome) for entry in due if entry.due <= time.monotonic()]
            self._out_of_reach = database == NO_DATABASE and not session.alive()
        finally:
            self._session = None
            if session is not self._home:
                session.close()
        if failed and database and database not in (self._run(NO_DATABASE) or {database}):
            # It was dropped meanwhile, which is no failure.
            self._forget({database})
        for entry, outcome in failed:
            entry.update(outcome)
        return found

    def _session_with(self, database: str) -> Session:
        if database in (NO_DATABASE, self._home.database()):
            return self._home
        self._home.close()
        session = Session(make_conninfo(self.target.dsn, dbname=database), self.target.password_file)
        # It ends with this visit; behind a pooler each would find what the one before prepared.
        session.prepare_no_more()
        return session

    def _outcomes(self, session: Session, due: Sequence[Entry], database: str) -> Iterator[tuple[Entry, Outcome]]:
        run = Pass(session, [entry.enabled for entry in due], float("inf"), database)
        for entry in due:
            if self._stop.is_set():
                return
            try:
                if not session.alive():
                    # It ended with the collector before, which must not harm this one.
                    session.open(time.monotonic() + _CONNECT)
                with session.cut_after(entry.enabled.statement_timeout + _GRACE):
                    outcome = run.run(entry.enabled, entry.memory)
            except Unreachable as error:
                outcome = Outcome(0.0, failed=True, detail=one_line(error))
            yield entry, outcome

    def _forget(self, databases: Collection[str]) -> None:
        for key in [key for key in self._entries if key[1] in databases]:
            del self._entries[key]

    def _discover(self, session: Session) -> dict[str, bool]:
        with session.cut_after(_CONNECT + _GRACE), session.transaction(Limits(_CONNECT, _CONNECT)):
            _, rows = session.rows(_DISCOVERY, few=False)
        return {name: may == "t" for name, may in rows if name and self.target.databases.wanted(name)}
