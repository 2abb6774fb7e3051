"""Worker and API of the task queue as processes, a database for them, and what its report must say."""

import collections
import contextlib
import datetime
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis

from tests.integration.conftest import free_port

TASKS = Path(__file__).resolve().parents[2] / "tasks" / "src"
REPORT = "backend.tasks.reports.monatsbericht"
POST = "/tasks/reports/monatsbericht"
CATEGORIES = ("Aroma", "Farbstoff", "Gewürz")

SCHEMA = """
    CREATE TABLE artikel (id int PRIMARY KEY, name text NOT NULL, kategorie text NOT NULL);
    CREATE TABLE lagerbewegung (
        id bigint PRIMARY KEY, artikel_id int NOT NULL REFERENCES artikel, charge_id int, lager_id int,
        datum timestamptz NOT NULL, art text NOT NULL, menge numeric(14, 3) NOT NULL);
    ALTER DATABASE {name} SET timezone TO 'UTC';
"""


def wait(condition: Callable[[], Any], what: str, timeout: float = 40) -> Any:
    """Return what a condition yields once it holds; a server that does not answer yet is no error."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            found = condition()
        except (httpx.TransportError, httpx.HTTPStatusError, redis.ConnectionError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:g} s: {what}")
        time.sleep(0.05)


def _movements() -> list[tuple[int, int, datetime.datetime, Decimal]]:
    """4,000 movements of 9 articles from September to November; every 7th id is missing."""
    begin = datetime.datetime(2026, 9, 20, tzinfo=datetime.UTC)
    ids = [number for number in range(1000, 5666) if number % 7]
    return [
        (
            number,
            number % 9 + 1,
            begin + datetime.timedelta(minutes=15 * (number - 1000)),
            Decimal(number % 23 - 8) / 8,
        )
        for number in ids
    ]


def expected(month: int) -> list[dict[str, Any]]:
    """The report, computed from the movements in Python."""
    sums: dict[str, list[Any]] = collections.defaultdict(lambda: [set(), 0, Decimal(0), Decimal(0)])
    for _, article, when, amount in _movements():
        if when.month == month:
            of = sums[CATEGORIES[article % 3]]
            of[0].add(article)
            of[1] += 1
            of[2 if amount > 0 else 3] += abs(amount)
    return [
        {
            "kategorie": name,
            "artikel": len(of[0]),
            "bewegungen": of[1],
            "zugang": of[2],
            "abgang": of[3],
            "saldo": of[2] - of[3],
        }
        for name, of in sorted(sums.items())
    ]


def exact(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with their amounts as numbers."""
    amounts = ("zugang", "abgang", "saldo")
    return [row | {name: Decimal(row[name]) for name in amounts} for row in rows]


def fill(database: str) -> None:
    """Make the tables and the movements."""
    with psycopg.connect(database) as connection:
        name = connection.info.dbname
        connection.execute(SCHEMA.format(name=name).encode())
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO artikel VALUES (%s, %s, %s)",
                [(number, f"Artikel {number}", CATEGORIES[number % 3]) for number in range(1, 10)],
            )
            with cursor.copy("COPY lagerbewegung (id, artikel_id, datum, menge, art) FROM STDIN") as copy:
                for row in _movements():
                    copy.write_row((*row, "Umbuchung"))


class Queue:
    """Worker and API as processes of their own, on one Redis and one database."""

    def __init__(self, redis_url: Callable[[int], str], database: str, directory: Path) -> None:
        secret = directory / "redis_password"
        self.redis_url = redis_url
        password = redis_url(0).split("@")[0].rsplit(":", 1)[1]
        secret.write_text(password + "\n")
        self.directory = directory
        self.ports = {name: free_port() for name in ("PORT", "METRICS_PORT", "WORKER_METRICS_PORT")}
        self.environment = os.environ | {
            "PYTHONPATH": str(TASKS),
            "ERP_TASKS_BROKER": redis_url(0).replace(f":{password}@", "default@"),
            "ERP_TASKS_RESULTS": redis_url(1).replace(f":{password}@", "default@"),
            "ERP_TASKS_REDIS_PASSWORD_FILE": str(secret),
            "ERP_DATABASE": database,
            "ERP_TASKS_CONCURRENCY": "1",
            "ERP_TASKS_SHUTDOWN_TIMEOUT": "1",
            "ERP_TASKS_LEASE": "3",
            **{f"ERP_TASKS_{name}": str(port) for name, port in self.ports.items()},
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.ports['PORT']}", timeout=20)

    def start(self, verb: str) -> subprocess.Popen[bytes]:
        """Start the worker or the API, and wait until it serves its metrics."""
        log = (self.directory / f"{verb}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "erp_tasks", verb],
            env=self.environment,
            stdout=log,
            stderr=log,
            cwd="/",
        )
        self.processes.append(process)
        wait(lambda: process.poll() is not None or self.metrics(verb), f"{verb} serves metrics")
        assert process.poll() is None, self.log(verb)
        if verb == "api":
            wait(lambda: self.http.get("/healthz").is_success, "the API answers")
        return process

    def log(self, verb: str) -> str:
        """What the process has written."""
        return (self.directory / f"{verb}.log").read_text()

    def metrics(self, verb: str) -> dict[str, float]:
        """Its samples, by name and labels."""
        port = self.ports["WORKER_METRICS_PORT" if verb == "worker" else "METRICS_PORT"]
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
        return {name: float(value) for name, value in (s.rsplit(" ", 1) for s in lines if s[0] != "#")}

    def submit(self, month: str = "2026-10", **headers: str) -> str:
        """Start the report; return the job's id."""
        answer = self.http.post(POST, json={"monat": month}, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def status(self, job_id: str) -> dict[str, Any]:
        """How a job stands."""
        return dict(self.http.get(f"/tasks/{job_id}").raise_for_status().json())

    def reach(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of some states."""
        return dict(
            wait(
                lambda: (found := self.status(job_id)) and found["state"] in states and found,
                f"job is {states}; worker's log: {self.log('worker')[-3000:]}",
            )
        )

    def stop(self) -> None:
        """End what runs."""
        self.http.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def running(redis_url: Callable[[int], str], database: str, directory: Path) -> Iterator[Queue]:
    """A queue on an empty Redis; its API runs, its worker is started by each test."""
    for number in (0, 1):
        redis.Redis.from_url(redis_url(number)).flushdb()
    found = Queue(redis_url, database, directory)
    try:
        found.start("api")
        yield found
    finally:
        found.stop()
