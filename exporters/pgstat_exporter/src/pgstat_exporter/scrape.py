"""Scrapes: concurrent ones share a run, each gets its answer before its own deadline, whatever the server does."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family

from pgstat_exporter import __version__, log
from pgstat_exporter.collect import Outcome, empty, run
from pgstat_exporter.config import Enabled
from pgstat_exporter.session import Session, Unreachable
from pgstat_exporter.texts import TextCache

# Statements end this much before the answer is due, so that the server ends them and the session survives.
_SERVER_MARGIN = 0.1
_OWN = {
    "pg_up": "1 when the database answered this scrape, 0 otherwise.",
    "pg_scrape_collector_success": "1 when the collector delivered its metrics, 0 when it failed or was skipped.",
    "pg_scrape_collector_duration_seconds": "Time the collector took; absent when it was not run.",
    "pg_scrape_collector_skipped": "1 for a collector that this server cannot serve, with the reason.",
    "pg_scrape_collector_truncated": "1 when the collector had more rows than its limit.",
}


@dataclass
class Run:
    """One pass over the collectors, readable while it is under way; `deadline` is on the monotonic clock."""

    deadline: float
    answered: bool = False
    trouble: str = ""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)


class Exporter:
    """Collects from one database; a Collector for prometheus_client, too."""

    def __init__(self, session: Session, collectors: Sequence[Enabled], default_seconds: float = 10) -> None:
        self._session = session
        self._collectors = list(collectors)
        self._default_seconds = default_seconds
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._closed = False
        self._said: dict[str, str] = {}
        self._texts = {
            one.name: TextCache(one.collector, texts)
            for one in self._collectors
            if (texts := one.collector.declaration.texts) and one.query_text
        }

    def scrape(self, seconds: float) -> list[Family]:
        """Return what the database says, within `seconds`; collectors that did not finish count as failed."""
        return self._families(self.observe(seconds))

    def observe(self, seconds: float) -> Run:
        """Return a run that ended, or was cut off because `seconds` are over."""
        due = time.monotonic() + seconds
        while True:
            run = self._join_or_start(due, seconds)
            late = run.deadline <= time.monotonic()
            run.done.wait(max(0.0, due - time.monotonic()))
            # A run that was over time when it was joined can only report a failure that is not this scrape's.
            if not late or time.monotonic() >= due:
                return run

    def collect(self) -> Iterable[Family]:
        """Return all metric families; for a registry of prometheus_client."""
        return self.scrape(self._default_seconds)

    def describe(self) -> Iterable[Family]:
        """Yield every family that may be exported, without asking the database."""
        yield from self._own_families().values()
        for enabled in self._collectors:
            for metric in enabled.collector.metrics():
                yield empty(metric, ())

    def close(self) -> None:
        """End the run under way and close the session."""
        with self._lock:
            self._closed = True
            run = self._run
        if run and not run.done.is_set():
            self._session.abort()
            run.done.wait(1)
        self._session.close()

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
        watchdog = threading.Timer(run.deadline - time.monotonic(), self._session.abort)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._pass(run, deadline)
        finally:
            watchdog.cancel()
            self._report(run)
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
        for enabled in self._collectors:
            texts = self._texts.get(enabled.name)
            current.outcomes[enabled.name] = run(self._session, enabled, texts, deadline)

    def _report(self, run: Run) -> None:
        """Log what changed: a fault once when it begins, not at every scrape, and its end."""
        said = {"database": run.trouble}
        said.update((name, outcome.detail) for name, outcome in run.outcomes.items())
        for name, trouble in said.items():
            if trouble and not self._said.get(name):
                log.write("error" if name == "database" else "warning", f"{name}: {trouble}")
            elif not trouble and self._said.get(name):
                log.write("info", f"{name}: well again")
        self._said.update(said)

    def _own_families(self) -> dict[str, Family]:
        families: dict[str, Family] = {name: GaugeMetricFamily(name, text) for name, text in _OWN.items()}
        build = InfoMetricFamily("pg_exporter_build", "Version of this exporter; always 1.")
        build.add_sample("pg_exporter_build_info", {"version": __version__}, 1.0)
        return families | {"pg_exporter_build_info": build}

    def _families(self, run: Run) -> list[Family]:
        own = self._own_families()
        outcomes = dict(run.outcomes)
        own["pg_up"].add_sample("pg_up", {}, float(run.answered))

        def add(name: str, value: float, **labels: str) -> None:
            own[f"pg_scrape_collector_{name}"].add_sample(f"pg_scrape_collector_{name}", labels, value)

        for enabled in self._collectors:
            outcome = outcomes.get(enabled.name)
            add("success", float(outcome is not None and outcome.ok), collector=enabled.name)
            if outcome is not None:
                add("duration_seconds", outcome.seconds, collector=enabled.name)
                add("truncated", float(outcome.truncated), collector=enabled.name)
                if outcome.skipped:
                    add("skipped", 1.0, collector=enabled.name, reason=outcome.skipped)
        return [*own.values(), *(family for outcome in outcomes.values() for family in outcome.families)]
