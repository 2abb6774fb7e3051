"""The task queue end to end: real Redis, PostgreSQL, worker and API processes."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

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


def _events(text: str) -> list[dict[str, str]]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def test_report_runs_and_everyone_can_see_it(queue: Queue) -> None:
    job_id = queue.submit()
    assert queue.status(job_id)["state"] == "queued"
    waiting = redis.Redis.from_url(queue.redis_url(0))
    assert waiting.llen("reports") == 1, "the plan's queue"
    queue.start("worker")
    done = queue.reach(job_id, "succeeded", "failed")
    assert done["state"] == "succeeded", done
    assert done["progress"] == {"done": 4666, "total": 4666, "percent": 100.0}
    assert exact(done["result"]) == expected(10)

    metrics = queue.metrics("worker")
    assert metrics[f'erp_tasks_started_total{{task="{REPORT}"}}'] == 1
    assert metrics[f'erp_tasks_succeeded_total{{task="{REPORT}"}}'] == 1
    assert metrics[f'erp_tasks_failed_total{{task="{REPORT}"}}'] == 0
    assert metrics[f'erp_tasks_duration_seconds_count{{task="{REPORT}"}}'] == 1
    assert metrics['erp_tasks_queue_length{queue="reports"}'] == 0
    assert metrics["erp_tasks_broker_up"] == 1
    wait(lambda: queue.metrics("worker")["erp_tasks_unacknowledged"] == 0, "the message is acknowledged")

    missing = queue.submit("2025-01")
    assert queue.reach(missing, "succeeded")["result"] == [], "a month without movements"


def test_backlog_is_measured(queue: Queue) -> None:
    worker = queue.start("worker")
    with psycopg.connect(queue.environment["ERP_DATABASE"]) as blocker:
        blocker.execute("LOCK TABLE artikel IN ACCESS EXCLUSIVE MODE")
        jobs = [queue.submit() for _ in range(3)]
        queue.reach(jobs[0], "running")
        metrics = wait(lambda: (m := queue.metrics("worker"))["erp_tasks_unacknowledged"] and m, "one task is taken")
        # Prefetch 1 of one process: one runs, one may lie ready, the rest waits in Redis.
        waiting = metrics['erp_tasks_queue_length{queue="reports"}']
        assert waiting + metrics["erp_tasks_unacknowledged"] == 3
        assert waiting >= 1
    for job in jobs:
        queue.reach(job, "succeeded")
    assert worker.poll() is None


def test_same_idempotency_key_is_same_job(queue: Queue) -> None:
    first = queue.submit(**{"Idempotency-Key": "k1"})
    assert queue.submit(**{"Idempotency-Key": "k1"}) == first
    assert queue.submit(**{"Idempotency-Key": "k2"}) != first
    assert queue.submit() != first
    other = queue.http.post(POST, json={"monat": "2026-09"}, headers={"Idempotency-Key": "k1"})
    assert other.status_code == 422
    assert redis.Redis.from_url(queue.redis_url(0)).llen("reports") == 3


@pytest.mark.parametrize("body", [{}, {"monat": "2026-13"}, {"monat": "2026-1"}, {"monat": "2026-10", "x": 1}])
def test_wrong_months_are_refused(queue: Queue, body: dict[str, Any]) -> None:
    assert queue.http.post(POST, json=body).status_code == 422


def test_unknown_jobs_are_not_found(queue: Queue) -> None:
    unknown = "/tasks/00000000-0000-4000-8000-000000000000"
    assert queue.http.get(unknown).status_code == 404
    assert queue.http.get(f"{unknown}/events").status_code == 404
    assert queue.http.get("/tasks/../etc/passwd").status_code == 404
    assert queue.http.get("/metrics").status_code == 404, "metrics have a port of their own"


def test_events_begin_with_a_snapshot_and_resume(queue: Queue) -> None:
    job_id = queue.submit()
    queue.start("worker")
    queue.reach(job_id, "succeeded")
    url = f"/tasks/{job_id}/events"
    fresh = queue.http.get(url)
    assert fresh.headers["content-type"].startswith("text/event-stream")
    (snapshot,) = _events(fresh.text)
    assert snapshot["event"] == "snapshot"
    assert json.loads(snapshot["data"])["state"] == "succeeded"
    # An independent reading of the stream: a client that saw the first event gets every later one, once.
    store = redis.Redis.from_url(queue.redis_url(1), decode_responses=True)
    ids = [str(entry[0]) for entry in store.xrange(f"erp_tasks:job:{job_id}:events") or ()]
    assert len(ids) >= 4, "queued, running, at least two of progress"
    resumed = _events(queue.http.get(url, headers={"Last-Event-ID": ids[0]}).text)
    assert [event["id"] for event in resumed] == ids[1:]
    percents = [json.loads(event["data"])["progress"]["percent"] for event in resumed]
    known = [percent for percent in percents if percent is not None]
    assert known == sorted(known)
    assert known[-1] == 100
    # What was trimmed away, or never was, leads to a snapshot; the last event of all ends it.
    for strange in ("1-1", "nonsense"):
        (again,) = _events(queue.http.get(url, headers={"Last-Event-ID": strange}).text)
        assert again["event"] == "snapshot"
    assert queue.http.get(url, headers={"Last-Event-ID": ids[-1]}).status_code == 204


def test_events_arrive_while_the_task_runs(queue: Queue) -> None:
    queue.start("worker")
    with psycopg.connect(queue.environment["ERP_DATABASE"]) as blocker:
        blocker.execute("LOCK TABLE lagerbewegung IN ACCESS EXCLUSIVE MODE")
        job_id = queue.submit()
        queue.reach(job_id, "running")
        with queue.http.stream("GET", f"/tasks/{job_id}/events") as answer:
            lines = answer.iter_lines()
            assert "event: snapshot" in [next(lines) for _ in range(4)]
            assert queue.metrics("api")["erp_tasks_event_streams"] == 1
            blocker.rollback()
            rest = "\n".join(lines)
    states = [json.loads(event["data"])["state"] for event in _events(rest)]
    assert states[-1] == "succeeded"
    wait(lambda: queue.metrics("api")["erp_tasks_event_streams"] == 0, "the stream is not counted any more")


def test_failure_is_told_without_its_traceback(queue: Queue, filled: str) -> None:
    with psycopg.connect(filled, autocommit=True) as connection:
        connection.execute("ALTER TABLE lagerbewegung RENAME TO weg")
    queue.start("worker")
    failed = queue.reach(queue.submit(), "failed")
    assert failed["message"].startswith('UndefinedTable: relation "lagerbewegung" does not exist')
    assert queue.metrics("worker")[f'erp_tasks_failed_total{{task="{REPORT}"}}'] == 1


def test_no_password_in_process_list_or_log(queue: Queue) -> None:
    worker = queue.start("worker")
    password = (queue.directory / "redis_password").read_text().strip()
    for process in queue.processes:
        assert password not in Path(f"/proc/{process.pid}/cmdline").read_text()
    queue.reach(queue.submit(), "succeeded")
    assert worker.poll() is None
    assert password not in queue.log("worker") + queue.log("api")


def test_unreadable_password_file_is_named(queue: Queue) -> None:
    queue.environment |= {"ERP_TASKS_REDIS_PASSWORD_FILE": "/nonexistent/redis_password"}
    run = subprocess.run(
        [sys.executable, "-P", "-m", "erp_tasks", "api"],
        env=queue.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr == (
        "erp_tasks: cannot read the password file /nonexistent/redis_password: No such file or directory\n"
    )


def test_page_is_served_with_a_strict_policy(queue: Queue) -> None:
    page = queue.http.get("/")
    assert "<progress" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        assert queue.http.get(name).is_success, name
