"""A real Prometheus, and what it kept of an exporter: whether a gap in the data was the exporter's."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.integration.pgstat_exporter_process import SOURCE
from tests.integration.postgres_server import free_port, wait_until

_OWN, _ALWAYS = "pg_scrape_collector_", ("pg_scrape_collector_success",)

Labels = frozenset[tuple[str, str]]
# Values by the time of the scrape, which is the same for all samples of one.
Values = dict[float, float]


@contextlib.contextmanager
def prometheus_server(program: str, directory: Path, configuration: dict[str, Any]) -> Iterator[httpx.Client]:
    """A Prometheus with this configuration, and a client for its API; ended afterwards."""
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}") as client:
            wait_until(lambda: _ready(client), f"Prometheus is ready, see {directory / 'log'}")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def query(client: httpx.Client, expr: str) -> list[dict[str, Any]]:
    """Return an instant query's result, which must be without reproach."""
    answer = client.get("/api/v1/query", params={"query": expr}).json()
    assert answer["status"] == "success", answer
    assert not {"warnings", "infos"} & answer.keys(), "Grafana would show a triangle"
    return list(answer["data"]["result"])


@contextlib.contextmanager
def watching(program: str, directory: Path, port: int, seconds: int = 2) -> Iterator["Story"]:
    """A Prometheus that scrapes an exporter every few seconds, and waits as long for its answer."""
    directory.mkdir(exist_ok=True)
    job = {"job_name": "pgstat", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    every = {"scrape_interval": f"{seconds}s", "scrape_timeout": f"{seconds}s"}
    with prometheus_server(program, directory, {"global": every, "scrape_configs": [job]}) as client:
        story = Story(client)
        story.wait(2)
        yield story


# Has a Prometheus watch what answers on a port, and wait so many seconds for each answer.
Watch = Callable[..., AbstractContextManager["Story"]]


@dataclass
class Story:
    """What Prometheus kept of one exporter, and when the database had its faults (Unix time)."""

    client: httpx.Client
    faults: list[tuple[float, float]] = field(default_factory=list)

    def kept(self, selector: str) -> dict[Labels, Values]:
        """Return every sample there is, by series."""
        return {
            frozenset(one["metric"].items()): {float(moment): float(value) for moment, value in one["values"]}
            for one in query(self.client, f"{selector}[1h]")
        }

    def one(self, selector: str) -> Values:
        """Return the samples of the only series that fits."""
        (values,) = self.kept(selector).values()
        return values

    def wait(self, scrapes: int = 2) -> None:
        """Wait until so many scrapes have begun from now on and ended."""
        began = time.time()

        def enough() -> bool:
            found = query(self.client, "up[1h]")
            return bool(found) and sum(float(moment) > began for moment, _ in found[0]["values"]) >= scrapes

        wait_until(enough, f"{scrapes} scrapes", timeout=60)

    @contextlib.contextmanager
    def fault(self) -> Iterator[None]:
        """What the database may be blamed for; it must be well when the block ends."""
        began = time.time()
        try:
            yield
        finally:
            self.faults.append((began, time.time()))

    def during(self) -> list[float]:
        """Return the scrapes that lie within a fault whole."""
        took = self.one("scrape_duration_seconds")
        return [
            moment
            for moment, seconds in took.items()
            if any(began <= moment and moment + seconds <= ended for began, ended in self.faults)
        ]

    def outside(self) -> list[float]:
        """Return the scrapes that no fault touched."""
        took = self.one("scrape_duration_seconds")
        return [
            moment
            for moment, seconds in took.items()
            if all(moment + seconds < began or moment > ended for began, ended in self.faults)
        ]

    def success(self) -> dict[tuple[str, str], Values]:
        """Return each collector's success, by name and database."""
        kept = self.kept("pg_scrape_collector_success")
        return {(found["collector"], found.get("datname", "")): kept[key] for key in kept if (found := dict(key))}

    def slow(self) -> set[tuple[str, str]]:
        """Return the collectors, by name and database, that run in the background."""
        ages = map(dict, self.kept("pg_scrape_collector_cache_age_seconds"))
        return {(found["collector"], found.get("datname", "")) for found in ages}

    def skipped_throughout(self) -> set[tuple[str, str]]:
        """Return the collectors, by name and database, that the server never could serve while it was up."""
        told, outside = self.success(), self.outside()
        found = set()
        for labels, moments in self.kept('pg_scrape_collector_skipped{reason!="pending"}').items():
            key = (dict(labels)["collector"], dict(labels).get("datname", ""))
            if all(moment in moments for moment in outside if moment in told[key]):
                found.add(key)
        return found

    def holes(self) -> list[tuple[dict[str, str], float]]:
        """Return the series that were there, then missing though their collector was well, then there again."""
        scrapes = sorted(self.one("up"))
        # One that runs in the background is well wherever the database is: its last data bridge its own failures.
        success = self.success() | dict.fromkeys(self.slow(), dict.fromkeys(self.outside(), 1.0))
        holes = []
        for labels, values in self.kept(
            '{__name__=~"pg_.+|process_.+",__name__!="pg_scrape_collector_skipped"}'
        ).items():
            named = dict(labels)
            collector = _collector(named)
            told = success.get((collector, named.get("datname", ""))) or success.get((collector, ""))
            # A server that crashed has forgotten its statements, until they are run again.
            era = self._era if "queryid" in named else bool
            spans: dict[int, list[float]] = {}
            for moment in values:
                spans.setdefault(era(moment), []).append(moment)
            holes += [
                (named, moment)
                for moment in scrapes
                if moment not in values and (told is None or told.get(moment) == 1)
                if (span := spans.get(era(moment))) and min(span) < moment < max(span)
            ]
        return holes

    def _era(self, moment: float) -> int:
        return sum(ended <= moment for _, ended in self.faults)

    def assert_unbroken(self, *without: str, absent: tuple[str, ...] = ()) -> None:
        """Check that nothing is missing but what a fault explains.

        `without` names collectors that may be skipped, `absent` how series begin that the server lacks for a while.
        """
        scrapes, outside = self.one("up"), self.outside()
        late = [moment for moment, up in scrapes.items() if not up]
        assert not late, f"every scrape is answered in time, whatever the database does, and not so at {late}"
        assert len(outside) >= 4, "there is something to compare with"
        down = [moment for moment in outside if self.one("pg_up").get(moment) != 1]
        assert not down, f"the database was up at {down}"
        exempt = self.slow() | self.skipped_throughout()
        wanted = {key: values for key, values in self.success().items() if key[0] not in without and key not in exempt}
        failed = [(key, moment) for key, values in wanted.items() for moment in outside if values.get(moment) != 1]
        assert wanted
        assert not failed, f"collectors failed: {failed}"
        holes = [hole for hole in self.holes() if not hole[0]["__name__"].startswith(absent)]
        assert not holes, f"{len(holes)} samples are missing: {holes[:5]}"


def _collector(series: dict[str, str]) -> str:
    """Return the collector that a series comes from, or "" for one that is always there."""
    name = series["__name__"]
    return series["collector"] if name.startswith(_OWN) and name not in _ALWAYS else _collectors().get(name, "")


@cache
def _collectors() -> dict[str, str]:
    """Return the collector of each metric, as the declarations have it."""
    found: dict[str, str] = {}
    for path in (SOURCE / "pgstat_exporter" / "collectors").glob("*.yaml"):
        declared = yaml.safe_load(path.read_text())
        metrics = [metric for one in declared["queries"] for metric in one["metrics"]]
        found |= {metric["name"]: path.stem for metric in (*metrics, *filter(None, [declared.get("texts")]))}
    return found
