"""Scrapes: concurrent ones share a run, each gets its answer before its own deadline, whatever the server does."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pgstat_exporter import __version__
from pgstat_exporter.collect import NO_DATABASE, Memory, Outcome, Pass
from pgstat_exporter.config import Enabled, Target
from pgstat_exporter.content import DATABASE, Collector
from pgstat_exporter.exposition import BUILD, OWN, UP, Family, OwnFamily, Part
from pgstat_exporter.reporter import Reporter
from pgstat_exporter.session import Session, Unreachable
from pgstat_exporter.slow import PENDING, Entry, SlowTier

# Statements end this much before the answer is due, so that the server ends them and the session survives.
_SERVER_MARGIN = 0.1
# A readiness check is answered from a run that is at most so old.
_FRESH = 5.0


@dataclass
class Run:
    """One pass over the fast collectors, readable while it is under way; `deadline` is on the monotonic clock."""

    deadline: float
    answered: bool = False
    # Whether it ended for want of time.
    cut: bool = False
    trouble: str = ""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)


class Exporter:
    """Collects from one server."""

    def __init__(self, target: Target, collectors: Sequence[Enabled], reporter: Reporter | None = None) -> None:
        self.target, self.collectors = target, tuple(collectors)
        self._session = Session(target.dsn, target.password_file)
        self._fast = [one for one in collectors if one.every is None]
        self._memories = {one.name: Memory.of(one) for one in self._fast}
        self.slow = SlowTier(target, [one for one in collectors if one.every is not None])
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._closed = False
        self._was_down = True
        self._reporter = reporter
        self._parts: dict[str, tuple[list[Outcome], Part]] = {}

    def scrape(self, seconds: float) -> list[Part]:
        """Return what the server says, within `seconds`; fast collectors that did not finish count as failed."""
        due = time.monotonic() + seconds
        # Only the first scrapes wait for the slow ones, so that neither an exporter that was restarted leaves a gap,
        self.slow.first_pass.wait(seconds / 2)
        run = self.observe(due - time.monotonic())
        # nor a server that has come back.
        self.slow.first_pass.wait(max(0.0, due - time.monotonic()) / 2)
        return self._answer(run)

    def observe(self, seconds: float) -> Run:
        """Return a run that ended, or was cut off because `seconds` are over."""
        due = time.monotonic() + seconds
        while True:
            run = self._join_or_start(due, seconds)
            late = run.deadline <= time.monotonic()
            run.done.wait(max(0.0, due - time.monotonic()))
            left = due - time.monotonic()
            # A run that ended for want of another scrape's time reports failures that are not this scrape's.
            if left <= 0 or not (late or (run.cut and left > seconds / 2)):
                return run

    def described(self) -> str:
        """Return in words what the exporter is connected to, without secrets."""
        return self._session.describe()

    def ready(self, seconds: float) -> bool:
        """Return whether the server answers, or did so just now."""
        run = self._run
        if run is None or not run.done.is_set() or time.monotonic() - run.deadline > _FRESH:
            run = self.observe(seconds)
        return run.answered

    def close(self) -> None:
        """End the run under way and close the sessions."""
        with self._lock:
            self._closed = True
            run = self._run
        if run and not run.done.is_set():
            self._session.abort()
            run.done.wait(1)
        self._session.close()
        self.slow.stop()

    def _join_or_start(self, due: float, seconds: float) -> Run:
        with self._lock:
            run = self._run
            if self._closed:
                run = Run(due, trouble="the exporter is stopping")
                run.done.set()
            elif run is None or run.done.is_set():
                run = self._run = Run(due)
                margin = min(_SERVER_MARGIN, seconds / 10)
                threading.Thread(target=self._work, args=(run, due - margin), daemon=True).start()
            return run

    def _work(self, run: Run, deadline: float) -> None:
        try:
            with self._session.cut_after(run.deadline - time.monotonic()):
                self._pass(run, deadline)
        finally:
            run.cut = time.monotonic() >= deadline
            self._was_down = not run.answered
            # Whatever befalls the log, those who wait get their answer, and the next run begins.
            try:
                self._report(run)
            finally:
                run.done.set()

    def _pass(self, current: Run, deadline: float) -> None:
        try:
            self._session.open(deadline)
        except Unreachable as error:
            current.trouble = str(error)
            return
        if time.monotonic() >= deadline:
            current.trouble = "it answered only after the scrape's time was over"
            return
        current.answered = True
        if self._was_down:
            self.slow.answers_again()
        run = Pass(self._session, self._fast, deadline)
        for enabled in self._fast:
            current.outcomes[enabled.name] = run.run(enabled, self._memories[enabled.name])

    def _report(self, run: Run) -> None:
        if self._reporter:
            slow = {entry.place: entry.last for entry in self.slow.entries()}
            self._reporter.report(run.trouble, run.outcomes | slow)

    def _answer(self, run: Run) -> list[Part]:
        own = {name: OwnFamily(name, text) for name, text in OWN.items()}
        own[UP].add(float(run.answered), {})
        own[BUILD].add(1.0, {"version": __version__})
        outcomes = dict(run.outcomes)
        entries: dict[str, list[Entry]] = {}
        for entry in self.slow.entries():
            entries.setdefault(entry.enabled.name, []).append(entry)
        fresh: list[Family] = []
        kept = []
        for one in self.collectors:
            good: list[Outcome] = []
            if one.every is None:
                _describe(own, one.name, NO_DATABASE, outcomes.get(one.name), run.answered)
                good = [outcome for outcome in (outcomes.get(one.name),) if outcome and outcome.ok]
            elif one.name not in entries:
                _describe(own, one.name, NO_DATABASE, PENDING, run.answered)
            for entry in entries.get(one.name, ()):
                _describe(own, one.name, entry.database, entry.last, run.answered)
                if run.answered and (data := entry.good()):
                    good.append(data)
                    age = time.monotonic() - entry.read
                    own["pg_scrape_collector_cache_age_seconds"].add(age, _labels(one.name, entry.database))
            if not good or not run.answered:
                continue
            if one.every is None:
                fresh.extend(families(one.collector, good))
            else:
                kept.append(self._part(one, good))
        # What is new at every scrape is one part: each costs a compression.
        return [Part([*(family.family() for family in own.values()), *fresh]), *kept]

    def _part(self, enabled: Enabled, outcomes: list[Outcome]) -> Part:
        """Return the metrics of a collector in the background, written and compressed once."""
        before = self._parts.get(enabled.name)
        if before is None or [id(one) for one in before[0]] != [id(one) for one in outcomes]:
            before = self._parts[enabled.name] = (outcomes, Part(families(enabled.collector, outcomes)))
        return before[1]


def families(collector: Collector, outcomes: Sequence[Outcome]) -> Iterable[Family]:
    """Yield a collector's metric families from its outcomes, one of each database."""
    for metric in collector.metrics():
        samples = [outcome.samples[metric.name] for outcome in outcomes if metric.name in outcome.samples]
        yield Family(metric.name, metric.type, metric.help, samples)


def _describe(own: dict[str, OwnFamily], name: str, database: str, outcome: Outcome | None, answered: bool) -> None:
    """Add what is to be said of a collector's last run; None when it did not finish."""
    labels = _labels(name, database)
    own["pg_scrape_collector_success"].add(float(answered and outcome is not None and outcome.ok), labels)
    if outcome is None or not answered:
        return
    if outcome.skipped:
        own["pg_scrape_collector_skipped"].add(1.0, {**labels, "reason": outcome.skipped})
    own["pg_scrape_collector_duration_seconds"].add(outcome.seconds, labels)
    own["pg_scrape_collector_truncated"].add(float(outcome.truncated), labels)
    own["pg_scrape_collector_samples"].add(outcome.series, labels)


def _labels(name: str, database: str) -> dict[str, str]:
    return {"collector": name, DATABASE: database}
