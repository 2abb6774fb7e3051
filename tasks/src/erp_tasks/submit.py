"""Starting a job exactly once, however often a client asks."""

import asyncio
import hashlib
import time
import uuid
from typing import Any, cast

import redis.asyncio as redis
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from erp_tasks.app import app
from erp_tasks.job import key, stream

_REMEMBER_SECONDS = 86400
# After this long without being published, the request that took the job has failed, and the next one publishes it.
_PUBLISH_SECONDS = 5


class KeyReusedError(Exception):
    """One Idempotency-Key for two different requests."""


async def submit(
    client: redis.Redis,
    task: str,
    arguments: dict[str, Any],
    *,
    idempotency_key: str | None,
    fingerprint: str,
) -> str:
    """Start a task, or find the job that the same key started; return the job's id. Raises KeyReusedError."""
    job_id = str(uuid.uuid4())
    await _create(client, job_id, task)
    if idempotency_key is not None:
        name = f"erp_tasks:idempotency:{hashlib.sha256(f'{task} {idempotency_key}'.encode()).hexdigest()}"
        mine = f"{job_id} {fingerprint}"
        # Sent again after a lost connection, it may find what it has itself written.
        if await client.set(name, mine, nx=True, get=True, ex=_REMEMBER_SECONDS) not in {None, mine}:
            await client.delete(key(job_id), stream(job_id))
            return await _earlier(client, name, task, arguments, fingerprint)
    await _publish(client, job_id, task, arguments)
    return job_id


async def _create(client: redis.Redis, job_id: str, task: str) -> None:
    now = round(time.time(), 3)
    fields: dict[Any, Any] = {"task": task, "state": "queued", "created": now, "updated": now}
    async with client.pipeline(transaction=True) as pipe:
        pipe.hset(key(job_id), mapping=fields)
        pipe.xadd(stream(job_id), fields)
        pipe.expire(key(job_id), 7 * _REMEMBER_SECONDS)
        pipe.expire(stream(job_id), 7 * _REMEMBER_SECONDS)
        await pipe.execute()


async def _publish(client: redis.Redis, job_id: str, task: str, arguments: dict[str, Any]) -> None:
    try:
        # In a thread: Celery's producer blocks.
        await asyncio.to_thread(
            app.send_task,
            task,
            kwargs=arguments,
            task_id=job_id,
            retry_policy={"max_retries": 1},
        )
    except OperationalError as error:
        raise RedisConnectionError(str(error)) from error
    await client.hset(key(job_id), "published", "1")


async def _earlier(client: redis.Redis, name: str, task: str, arguments: dict[str, Any], fingerprint: str) -> str:
    job_id, _, its_fingerprint = cast("str", await client.get(name) or "").partition(" ")
    if its_fingerprint != fingerprint:
        raise KeyReusedError("This Idempotency-Key was used for another request.")
    deadline = time.monotonic() + _PUBLISH_SECONDS
    while not await client.hget(key(job_id), "published"):
        if time.monotonic() > deadline:
            # A worker may get it twice then; the second time, the job has succeeded already.
            await _publish(client, job_id, task, arguments)
            break
        await asyncio.sleep(0.1)
    return job_id
