"""The workload against a real server: its report and the server's own figures agree."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.erp_process import ENVIRONMENT, Server, erp


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> Iterator[str]:
    """A small ERP's database."""
    postgres.execute("CREATE DATABASE erp_load")
    found = postgres.dsn("erp_load")
    made = erp("generate", "--dsn", found)
    assert made.returncode == 0, made.stderr
    yield found
    postgres.execute("DROP DATABASE erp_load WITH (FORCE)")


@pytest.fixture
def server(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with fresh figures."""
    found = Server(dsn, tmp_path_factory.mktemp("server")).ready()
    yield found
    found.stop()


def loaded(server: Server, *arguments: str) -> dict[str, Any]:
    """Run the workload to its end and return its report."""
    run = erp("load", "--url", server.url, "--json", *arguments)
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout))


def served(server: Server, endpoint: str) -> float:
    """Return how many requests the server has counted."""
    method, _, template = endpoint.partition(" ")
    return server.samples("erp_http_requests_total", endpoint=template, method=method)


def test_the_normal_mix_is_healthy_and_counted_on_both_sides(server: Server, dsn: str) -> None:
    """No error; what the workload has posted is in the database."""
    movements = "SELECT count(*), min(menge) FROM lagerbewegung WHERE id > 100000"
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = (connection.execute(movements).fetchone() or (0,))[0]
        report = loaded(server, "--rate", "40", "--duration", "5")
        after = (connection.execute(movements).fetchone() or (0,))[0]
    assert (report["requests"], report["errors"]) == (200, 0)
    assert len(report["endpoints"]) == 9
    # Besides these, the workload asks once what there is.
    asked_before = {"GET /kategorien": 1, "GET /artikel": 12, "GET /artikel/{artikel_id}/chargen": 24}
    for endpoint, figures in report["endpoints"].items():
        assert served(server, endpoint) == figures["requests"] + asked_before.get(endpoint, 0)
        assert 0 < figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["max"]
    assert after - before == report["endpoints"]["POST /bewegungen"]["requests"] > 0


def test_a_burst_is_far_over_a_hundred_queries_per_minute(server: Server) -> None:
    report = loaded(server, "--mix", "burst", "--rate", "60", "--duration", "3")
    assert list(report["endpoints"]) == ["GET /artikel"]
    assert report["requests"] == 180
    assert server.samples("erp_endpoint_db_queries_total", endpoint="/artikel") >= 180


def test_posting_waits_for_a_held_lock_and_finally_succeeds(server: Server, dsn: str) -> None:
    """As `prove` makes slow queries: no error, latencies as long as the wait, and slow queries in the metrics."""
    with (
        psycopg.connect(dsn) as holder,
        psycopg.connect(dsn, autocommit=True) as watcher,
        ThreadPoolExecutor(1) as pool,
    ):
        holder.execute("LOCK TABLE lagerbewegung IN SHARE ROW EXCLUSIVE MODE")
        running = pool.submit(loaded, server, "--mix", "posting", "--rate", "4", "--duration", "1")
        long = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND now() - query_start > '1.2 s'"
        wait_until(lambda: watcher.execute(long).fetchone() == (4,), "four postings have waited for more than a second")
        holder.rollback()
        report = running.result()
    assert (report["requests"], report["errors"]) == (4, 0)
    assert report["endpoints"]["POST /bewegungen"]["max"] > 1.2
    bucket = {"query_name": "bewegung_buchen", "le": "1.0"}
    count = server.samples("erp_db_query_duration_seconds_count", query_name="bewegung_buchen")
    assert count - server.samples("erp_db_query_duration_seconds_bucket", **bucket) == 4


def test_it_ends_at_sigterm_with_its_report(server: Server) -> None:
    command = [sys.executable, "-P", "-m", "erp", "load", "--url", server.url, "--rate", "20", "--duration", "80000"]
    with subprocess.Popen(command, env=ENVIRONMENT, cwd="/", stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: served(server, "GET /artikel") > 14, "the workload runs")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    lines = said.splitlines()
    assert lines[0].split() == ["endpoint", "requests", "errors", "p50", "p95", "p99", "max"]
    assert lines[-1].endswith(" requests, 0 errors")


def test_without_data_it_says_what_to_do(database: str, tmp_path: Any) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(b"CREATE TABLE lager (id int, name text, ort text, klima text)")
        connection.execute(b"CREATE TABLE artikel (id int, kategorie text)")
        connection.execute(b"CREATE TABLE charge (id int, artikel_id int)")
    server = Server(database, tmp_path).ready()
    run = erp("load", "--url", server.url, "--duration", "1")
    server.stop()
    assert run.returncode == 1
    assert "the ERP has no data; fill it with `python3 -m erp generate`" in run.stderr
