"""A pgstat_exporter of the tests: a real process beside a real PostgreSQL, read as Prometheus reads it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pgstat_exporter import content
from tests.integration.postgres_server import Installation, PostgresServer, free_port, postgres_server, wait_until

SOURCE = Path(__file__).resolve().parents[2] / "exporters" / "pgstat_exporter" / "src"
# Of each kind one or more: some need a role, one an extension; they succeed on every version with pg_monitor.
COLLECTORS = ("activity", "archiver", "database", "locks", "server", "statements")
MONITOR = "test_pgstat_monitor"


def command(verb: str, config: Path, *options: str) -> list[str]:
    """Return the command line of a verb."""
    return [sys.executable, "-m", "pgstat_exporter", verb, "--config", str(config), *options]


def environment() -> dict[str, str]:
    """Return an environment in which the exporter's source is found."""
    return os.environ | {"PYTHONPATH": str(SOURCE)}


class Answer(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """The samples of one scrape, with the status and the seconds it took."""

    def __init__(self, body: str, status: int, seconds: float) -> None:
        super().__init__()
        self.body, self.status, self.seconds = body, status, seconds
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                self[sample.name, frozenset(sample.labels.items())] = sample.value

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample's value, or None when there is no such sample."""
        return self.get((name, frozenset(labels.items())))

    def labelled(self, name: str, label: str) -> dict[str, float]:
        """Return a metric's values by one of its labels."""
        return {dict(labels)[label]: value for (found, labels), value in self.items() if found == name}

    def success(self) -> dict[str, float]:
        """Return each collector's success."""
        return self.labelled("pg_scrape_collector_success", "collector")


@dataclass
class RunningExporter:
    """An exporter under way."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def scrape(self, timeout: float = 10, header: float | None = None) -> Answer:
        """Scrape as Prometheus does; `header` is the timeout that it states."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics")
        if header is not None:
            request.add_header("X-Prometheus-Scrape-Timeout-Seconds", str(header))
        started = time.monotonic()
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310 - loopback
            body = response.read().decode()
            return Answer(body, response.status, time.monotonic() - started)

    def stop(self) -> tuple[int, str]:
        """Send SIGTERM; return the exit status and what was logged."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10), self.log.read_text()


def monitor_on(server: PostgresServer) -> str:
    """Return the name of a role with pg_monitor and nothing else, made if need be."""
    if not server.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{MONITOR}'"):  # noqa: S608
        server.execute(f"CREATE ROLE {MONITOR} LOGIN; GRANT pg_monitor TO {MONITOR}")
    return MONITOR


def only(*names: str, **settings: object) -> dict[str, dict[str, object]]:
    """Return settings that turn the other collectors off, and give these ones further settings."""
    return {name: dict(settings) if name in names else {"enabled": False} for name in content.load()}


def write_config(folder: Path, dsn: str, **settings: object) -> Path:
    """Write a configuration file with a free port."""
    path = folder / f"config-{free_port()}.yml"
    path.write_text(yaml.safe_dump({"dsn": dsn, "port": free_port(), **settings}))
    return path


@contextlib.contextmanager
def running(config: Path) -> Iterator[RunningExporter]:
    """Run an exporter until the block ends; it must still be alive then, or have been stopped by the test."""
    port = yaml.safe_load(config.read_text())["port"]
    log = config.with_suffix(".log")
    with log.open("w") as stderr:
        process = subprocess.Popen(command("serve", config), env=environment(), stderr=stderr, text=True)
    exporter = RunningExporter(process, port, log)
    try:
        wait_until(lambda: process.poll() is not None or _listens(exporter), "the exporter listens")
        if process.poll() is not None:
            pytest.fail(f"the exporter ended at once: {log.read_text()}")
        yield exporter
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def shop_server(installation: Installation, configuration: str) -> Iterator[PostgresServer]:
    """A server with a database `shop`, its pg_stat_statements, the exporter's role and a user `clerk`."""
    with postgres_server(installation, configuration, "-A", "trust") as server:
        server.execute(f"CREATE ROLE {MONITOR} LOGIN; GRANT pg_monitor TO {MONITOR}; CREATE ROLE clerk LOGIN")
        server.execute("CREATE DATABASE shop")
        server.execute("CREATE EXTENSION pg_stat_statements; CREATE TABLE sold AS SELECT 1 AS id", "shop")
        yield server


def sessions(server: PostgresServer) -> list[int]:
    """Return the server processes of exporters."""
    rows = server.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgstat_exporter'")
    return [pid for (pid,) in rows]


def _listens(exporter: RunningExporter) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/-/healthy"):
        return True
    return False
