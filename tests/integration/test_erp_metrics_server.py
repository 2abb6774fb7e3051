"""A real server with one and with several workers: whatever clients and queries do, it counts once and rightly.

The counts of queries and rows are compared with pg_stat_statements, which keeps the comments that name them.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from tests.integration.conftest import free_port, wait_until
from tests.integration.erp_process import ENVIRONMENT

_STATEMENTS = """
    SELECT substring(query from 'name: (\\w+)'), sum(calls)::int, sum(rows)::int FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query LIKE '/* name: %'
    GROUP BY 1
"""


class Served:
    """The application under uvicorn."""

    def __init__(self, database: str, directory: Path, workers: int) -> None:
        self.database, self.workers = database, workers
        self.ports = free_port(), free_port()
        settings = {"ERP_DATABASE": database, "ERP_METRICS_PORT": str(self.ports[1])}
        if workers > 1:
            settings["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
        command = [sys.executable, "-m", "uvicorn", "tests.integration.erp_metrics_app:app", "--ws=wsproto"]
        command += [f"--port={self.ports[0]}", f"--workers={workers}", "--log-level=critical"]
        self.process = subprocess.Popen(command, env=ENVIRONMENT | settings, cwd="/", start_new_session=True)
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        # uvicorn closes a connection after the application has failed: a client that keeps it may meet that.
        once = {"Connection": "close"}
        self.http = httpx.Client(base_url=self.url, headers=once, timeout=40, trust_env=False)

    def ready(self) -> None:
        """Wait until every worker answers."""
        seen: set[int] = set()

        def all_answer() -> bool:
            assert self.process.poll() is None
            try:
                # A new connection each: the kernel gives it to any worker.
                seen.add(httpx.get(f"{self.url}/lesen/0", trust_env=False).json())
            except httpx.TransportError:
                return False
            return len(seen) == self.workers

        wait_until(all_answer, "all workers answer")
        self.pids = seen

    def samples(self, name: str, label: str = "", **labels: str) -> dict[str, float]:
        """Return a metric's samples other than 0 with some labels, by one label."""
        text = httpx.get(f"http://127.0.0.1:{self.ports[1]}/metrics", trust_env=False).text
        return {
            sample.labels.get(label, ""): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items() and sample.value
        }

    def settled(self, name: str, label: str, expected: dict[str, float], **labels: str) -> None:
        """Wait until a metric is as expected: processes that others show are a quarter of a second late."""
        seen: list[dict[str, float]] = []

        def is_so() -> bool:
            seen[:] = [self.samples(name, label, **labels)]
            return seen == [expected]

        try:
            wait_until(is_so, name, 10)
        except pytest.fail.Exception:
            assert seen == [expected], name

    def statements(self) -> dict[str, tuple[int, int]]:
        """Return calls and rows by name as PostgreSQL counted them."""
        with psycopg.connect(self.database) as connection:
            return {name: (calls, rows) for name, calls, rows in connection.execute(_STATEMENTS.encode())}

    def hold(self) -> int:
        """Hold a connection of a pool while somebody has lock 1; return the answer's status."""
        return httpx.get(f"{self.url}/halten", timeout=60, trust_env=False).status_code

    def stop(self) -> None:
        """End it."""
        self.http.close()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def served(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[Served]:
    """The application over a database with two tables."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        connection.execute("CREATE TABLE lager (id int PRIMARY KEY); CREATE TABLE ladung (id int)")
        connection.execute("INSERT INTO lager VALUES (1), (2), (3)")
    found = Served(database, tmp_path, request.param)
    try:
        found.ready()
        yield found
    finally:
        found.stop()


def test_queries_rows_and_errors(served: Served) -> None:
    """Of every kind, as often as PostgreSQL says, under the endpoint that sent them."""
    for _ in range(4):
        assert served.http.get("/lesen/10").is_success
        assert served.http.get("/faden").json() == 1
        assert served.http.post("/kopieren/100").json() == 100
        assert served.http.post("/leitung/5").is_success
        assert served.http.get("/strom/25").text.count("\n") == 25
        assert served.http.get("/abgebrochen").is_success
        assert served.http.post("/schreiben/7").status_code == 500
        assert served.http.get("/kaputt").status_code == 500
    # Failed queries and those behind them in a pipeline are unknown to PostgreSQL's statistics; a server-side cursor's
    # are FETCHes.
    unknown = {"schreiben": (8, 4), "fehlt": (4, 0), "danach": (4, 0), "abgebrochen": (4, 0), "strom": (4, 100)}
    expected = {name: counts for name, counts in served.statements().items() if name not in unknown} | unknown
    assert expected["lesen"] == (4 * 12, 4 * 5)
    assert expected["leitung"] == (4 * 5, 4 * 5)
    calls = {name: float(number) for name, (number, _) in expected.items()}
    served.settled("erp_db_query_count_total", "query_name", calls)
    served.settled("erp_db_query_duration_seconds_count", "query_name", calls)
    served.settled(
        "erp_db_query_rows_total", "query_name", {name: rows for name, (_, rows) in expected.items() if rows}
    )
    served.settled("erp_db_query_errors_total", "query_name", {"schreiben": 4}, sqlstate_class="23")
    served.settled("erp_db_query_errors_total", "query_name", {"fehlt": 4}, sqlstate_class="42")
    served.settled("erp_db_query_errors_total", "query_name", {"abgebrochen": 4}, sqlstate_class="cancelled")
    served.settled("erp_db_query_names_total", "source", {"comment": sum(calls.values())})
    by_endpoint = {
        "/lesen/{anzahl}": 40.0,
        "/faden": 4,
        "/kopieren/{anzahl}": 4,
        "/leitung/{anzahl}": 4 * 8,
        "/strom/{anzahl}": 4,
        "/abgebrochen": 4,
        "/schreiben/{nummer}": 8,
        "/kaputt": 4,
    }
    served.settled("erp_endpoint_db_queries_total", "endpoint", by_endpoint)
    served.settled("erp_http_requests_total", "endpoint", {"/schreiben/{nummer}": 4, "/kaputt": 4}, status="500")
    # Each request of /lesen sent ten queries: that is how one sees N+1. Those that wait for the workers sent none.
    sent = served.samples("erp_http_request_db_queries_bucket", "le", endpoint="/lesen/{anzahl}")
    assert sent["10.0"] - sent["5.0"] == 4
    served.settled("erp_http_request_db_queries_sum", "endpoint", by_endpoint)


def test_clients_that_go_away(served: Served) -> None:
    """A stream that nobody reads to its end counts once as 499, its queries so far; its connection comes back.

    So does an upload that breaks off.
    """
    for _ in range(3):
        with served.http.stream("GET", "/endlos") as response:
            next(response.iter_raw())
    served.settled("erp_http_requests_total", "status", {"499": 3}, endpoint="/endlos")
    served.settled("erp_http_request_duration_seconds_count", "endpoint", {"/endlos": 3}, endpoint="/endlos")
    served.settled("erp_db_pool_connections_used", "pool", {})
    calls = served.statements()["endlos"][0]
    assert calls >= 3
    served.settled("erp_db_query_count_total", "query_name", {"endlos": calls})
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", served.ports[0]), timeout=30) as stream:
            stream.sendall(b"POST /hochladen HTTP/1.1\r\nHost: erp\r\nContent-Length: 100\r\n\r\nhalb")
    served.settled("erp_http_requests_total", "status", {"499": 3}, endpoint="/hochladen")


def test_websockets(served: Served) -> None:
    """Their queries belong to their endpoint; they are no requests, and leave nothing checked out."""
    for number in range(3):
        assert _talk(served.ports[0], f"/ws/raum{number}", 5) == [f"raum{number}"] * 5
    served.settled("erp_endpoint_db_queries_total", "endpoint", {"/ws/{raum}": 15})
    served.settled("erp_db_active_connections", "", {})
    assert "/ws/{raum}" not in served.samples("erp_http_requests_total", "endpoint")
    assert served.statements()["lesen"][0] == 15


def test_pools_of_all_processes(served: Served) -> None:
    """Used and waiting while every connection is held, as PostgreSQL sees them; nothing of it afterwards."""
    most = 4 * served.workers
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with (
        ThreadPoolExecutor(40) as threads,
        psycopg.connect(served.database, autocommit=True) as watcher,
        psycopg.connect(served.database) as holder,
    ):
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        asked = [threads.submit(served.hold) for _ in range(most)]

        def all_held() -> bool:
            # The kernel gives requests to either worker: ask until both have their fill.
            (held,) = watcher.execute(waiting).fetchone() or (0,)
            if held < most and len(asked) < 40:
                asked.append(threads.submit(served.hold))
            return bool(held == most)

        wait_until(all_held, "every connection is held")
        asked += [threads.submit(served.hold) for _ in range(3)]
        served.settled("erp_db_pool_connections_used", "pool", {"erp": most})
        served.settled("erp_db_pool_waiting", "pool", {"erp": len(asked) - most})
        served.settled("erp_db_pool_connections", "pool", {"erp": most})
        served.settled("erp_db_pool_connections_max", "pool", {"erp": most})
        served.settled("erp_db_active_connections", "", {"": most})
        holder.rollback()
        assert {one.result() for one in asked} == {200}
    served.settled("erp_db_pool_connections_used", "pool", {})
    served.settled("erp_db_pool_waiting", "pool", {})
    served.settled("erp_db_query_count_total", "query_name", {"halten": len(asked)})


def _talk(port: int, path: str, messages: int) -> list[str]:
    """Send messages over a WebSocket, and return the answers."""
    connection = WSConnection(ConnectionType.CLIENT)
    answers: list[str] = []
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stream:
        stream.sendall(connection.send(Request(host="erp", target=path)))
        while len(answers) < messages:
            connection.receive_data(stream.recv(4096))
            for event in connection.events():
                assert isinstance(event, (AcceptConnection, TextMessage))
                if isinstance(event, TextMessage):
                    answers.append(event.data)
                if len(answers) < messages:
                    stream.sendall(connection.send(TextMessage("hallo")))
        stream.sendall(connection.send(CloseConnection(1000)))
    return answers
