"""Nothing gets lost when processes, Redis or the database go away in the middle of a task."""

import functools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.integration.conftest import free_port
from tests.integration.task_queue import POST, REPORT, Queue, exact, expected, fill, running, wait


@pytest.fixture
def filled(database: str) -> str:
    """A database with movements."""
    fill(database)
    return database


@pytest.fixture
def queue(redis_server: Any, filled: str, tmp_path: Path) -> Iterator[Queue]:
    """API, Redis and database; the worker is started by each test."""
    with running(redis_server.url, filled, tmp_path) as found:
        yield found


def _pool_process(worker: subprocess.Popen[bytes], queue: Queue) -> int:
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    assert children, queue.log("worker")
    return int(children[0])


def test_task_of_a_killed_process_is_done_all_the_same(queue: Queue) -> None:
    worker = queue.start("worker")
    with psycopg.connect(queue.environment["ERP_DATABASE"]) as blocker:
        blocker.execute("LOCK TABLE lagerbewegung IN ACCESS EXCLUSIVE MODE")
        job_id = queue.submit()
        queue.reach(job_id, "running")
        os.kill(_pool_process(worker, queue), signal.SIGKILL)
        wait(lambda: queue.status(job_id)["attempt"] == 2, "a second attempt begins")
    done = queue.reach(job_id, "succeeded")
    assert exact(done["result"]) == expected(10)
    metrics = queue.metrics("worker")
    assert metrics[f'erp_tasks_lost_total{{task="{REPORT}"}}'] == 1
    assert metrics[f'erp_tasks_started_total{{task="{REPORT}"}}'] == 2
    assert metrics[f'erp_tasks_succeeded_total{{task="{REPORT}"}}'] == 1


def _attempts(queue: Queue, job_id: str, number: int) -> bool:
    return bool(queue.status(job_id)["attempt"] == number)


def test_poison_is_given_up(queue: Queue) -> None:
    worker = queue.start("worker")
    with psycopg.connect(queue.environment["ERP_DATABASE"]) as blocker:
        blocker.execute("LOCK TABLE lagerbewegung IN ACCESS EXCLUSIVE MODE")
        job_id = queue.submit()
        for attempt in range(1, 6):
            wait(functools.partial(_attempts, queue, job_id, attempt), f"attempt {attempt} begins")
            os.kill(_pool_process(worker, queue), signal.SIGKILL)
        failed = queue.reach(job_id, "failed")
    assert "given up" in failed["message"]
    assert worker.poll() is None
    assert queue.reach(queue.submit(), "succeeded"), "the worker works on"
    assert queue.metrics("worker")["erp_tasks_unacknowledged"] == 0


def test_stopped_worker_gives_its_task_back(queue: Queue) -> None:
    worker = queue.start("worker")
    with psycopg.connect(queue.environment["ERP_DATABASE"]) as blocker:
        blocker.execute("LOCK TABLE lagerbewegung IN ACCESS EXCLUSIVE MODE")
        job_id = queue.submit()
        queue.reach(job_id, "running")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0, queue.log("worker")
    queue.start("worker")
    assert exact(queue.reach(job_id, "succeeded")["result"]) == expected(10)


def test_job_of_a_crashed_worker_is_done_by_the_next(queue: Queue) -> None:
    """Within the lease, long before Redis' own visibility timeout of an hour."""
    worker = queue.start("worker")
    with psycopg.connect(queue.environment["ERP_DATABASE"]) as blocker:
        blocker.execute("LOCK TABLE lagerbewegung IN ACCESS EXCLUSIVE MODE")
        job_id = queue.submit()
        queue.reach(job_id, "running")
        children = [_pool_process(worker, queue)]
        for process in (worker.pid, *children):
            os.kill(process, signal.SIGKILL)
        worker.wait()
    queue.start("worker")
    done = queue.reach(job_id, "succeeded")
    assert done["attempt"] == 2
    assert exact(done["result"]) == expected(10)
    assert queue.metrics("worker")[f'erp_tasks_abandoned_total{{task="{REPORT}"}}'] == 1


class OwnRedis:
    """A Redis of one test, which can crash and come back with all that it had acknowledged."""

    def __init__(self, program: str, directory: Path) -> None:
        self.port = free_port()
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", "pw"]
        self._command += ["--dir", str(directory), "--appendonly", "yes", "--appendfsync", "always"]
        self.start()

    def url(self, database: int) -> str:
        return f"redis://:pw@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        self._server = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait(lambda: redis.Redis.from_url(self.url(0)).ping(), "Redis answers")

    def crash(self) -> None:
        self._server.kill()
        self._server.wait()


@pytest.fixture
def own_redis(need_program: Callable[[str, str], str], tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis that the test may end."""
    server = OwnRedis(need_program("redis-server", "redis-server"), tmp_path)
    yield server
    server.crash()


@pytest.fixture
def fragile(own_redis: OwnRedis, filled: str, tmp_path: Path) -> Iterator[Queue]:
    """A queue on that Redis; nothing of it runs yet."""
    queue = Queue(own_redis.url, filled, tmp_path)
    yield queue
    queue.stop()


def test_redis_that_crashes_loses_nothing(fragile: Queue, own_redis: OwnRedis, filled: str) -> None:
    """One job ran and one waited; both are done, and the worker goes on by itself."""
    fragile.start("api")
    worker = fragile.start("worker")
    with psycopg.connect(filled) as blocker:
        blocker.execute("LOCK TABLE lagerbewegung IN ACCESS EXCLUSIVE MODE")
        jobs = [fragile.submit(), fragile.submit()]
        fragile.reach(jobs[0], "running")
        own_redis.crash()
        assert fragile.http.get("/healthz").status_code == 503
        refused = fragile.http.post(POST, json={"monat": "2026-10"})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "5"
        assert fragile.metrics("worker")["erp_tasks_broker_up"] == 0
        wait(lambda: "Trying again" in fragile.log("worker"), "the worker has noticed")
        own_redis.start()
    for job in jobs:
        assert exact(fragile.reach(job, "succeeded")["result"]) == expected(10)
    assert worker.poll() is None


def test_first_request_after_redis_is_back_is_served(fragile: Queue, own_redis: OwnRedis) -> None:
    """Connections that broke in between are replaced without a word to the client."""
    fragile.start("api")
    fragile.start("worker")
    fragile.reach(fragile.submit(), "succeeded")
    own_redis.crash()
    own_redis.start()
    assert fragile.reach(fragile.submit(), "succeeded", "failed")["state"] == "succeeded"


@pytest.mark.parametrize("age", [0, 1.2, 1.6])
def test_worker_stops_although_redis_goes_first(fragile: Queue, own_redis: OwnRedis, age: float) -> None:
    """Both are told to stop, as in a shutdown of their host; Redis is gone at some moment of the worker's stop."""
    worker = fragile.start("worker")
    wait(lambda: "ready." in fragile.log("worker"), "the worker is ready")
    time.sleep(age)
    worker.send_signal(signal.SIGTERM)
    wait(lambda: "Hitting Ctrl+C" in fragile.log("worker"), "the worker begins to stop")
    own_redis.crash()
    worker.wait(15)


def test_late_second_delivery_is_dropped(queue: Queue) -> None:
    job_id = queue.submit()
    broker = redis.Redis.from_url(queue.redis_url(0))
    (message,) = broker.lrange("reports", 0, -1)
    queue.start("worker")
    queue.reach(job_id, "succeeded")
    broker.lpush("reports", message)
    wait(lambda: broker.llen("reports") == 0 and broker.hlen("unacked") == 0, "the second delivery is taken")
    assert queue.status(job_id)["attempt"] == 1
    assert queue.metrics("worker")[f'erp_tasks_started_total{{task="{REPORT}"}}'] == 1


def test_idle_worker_stops_at_once(queue: Queue) -> None:
    worker = queue.start("worker")
    begun = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    assert time.monotonic() - begun < 5
    assert not re.search(r"ERROR|Traceback", queue.log("worker")), queue.log("worker")


def test_database_that_comes_back_is_tried_again(queue: Queue, filled: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(filled)["dbname"]
    with psycopg.connect(filled.replace(f"dbname={name}", "dbname=postgres"), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        queue.start("worker")
        job_id = queue.submit()
        assert queue.reach(job_id, "retrying")["message"].startswith("OperationalError")
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    assert queue.reach(job_id, "succeeded")["attempt"] >= 2
    assert queue.metrics("worker")[f'erp_tasks_retried_total{{task="{REPORT}"}}'] >= 1
