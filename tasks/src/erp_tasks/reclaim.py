"""Queues a job again whose worker has died or lost its connection.

Redis itself would hand it out only after the visibility timeout, which has to outlast the longest task. That late
second delivery finds the job ended and is dropped (task.py).
"""

import json
import logging
import threading
from typing import cast

import redis
from kombu.exceptions import OperationalError

from erp_tasks import metrics
from erp_tasks.app import app, settings
from erp_tasks.job import FINAL, LEASES, Job, key, now

_log = logging.getLogger(__name__)


def forever() -> None:
    """Look for such jobs from time to time; every worker does, and the first to take one queues it."""
    # A client of its own: the worker forks new processes, and those must not inherit a lock that this thread holds.
    client = redis.Redis.from_url(settings.results, decode_responses=True, socket_timeout=10, socket_connect_timeout=5)
    pause = threading.Event()
    while not pause.wait(settings.lease / 3):
        try:
            once(client)
        except (redis.RedisError, OperationalError) as error:
            _log.warning("cannot look for abandoned jobs: %s", error)


def once(client: redis.Redis) -> list[str]:
    """Queue every job whose lease has run out; return their ids."""
    found = []
    for job_id in cast("list[str]", client.zrangebyscore(LEASES, 0, now(client))):
        if not client.zrem(LEASES, job_id):
            continue
        task, state, arguments = client.hmget(key(job_id), ["task", "state", "arguments"])
        if task and arguments and state not in FINAL:
            metrics.ABANDONED.labels(task).inc()
            _log.warning("job %s was abandoned by its worker and is queued again", job_id)
            Job(client, job_id).end("queued", "Its worker was lost; it waits for another one.")
            app.send_task(task, kwargs=json.loads(arguments), task_id=job_id)
            found.append(job_id)
    return found
