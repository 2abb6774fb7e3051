"""A job's progress as server-sent events (HTML standard, 9.2), resumable by Last-Event-ID."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any, cast

import redis.asyncio as redis

from erp_tasks.job import FINAL, Snapshot, key, stream

_ID = re.compile(r"\d{1,20}-\d{1,20}")
_BEGINNING = "0-0"
_KEEP_ALIVE_MS = 10_000


async def snapshot(client: redis.Redis, job_id: str) -> tuple[dict[str, str], str]:
    """Return a job's hash (empty when there is none) and the id of its last event, both of one moment."""
    async with client.pipeline(transaction=True) as pipe:
        pipe.hgetall(key(job_id))
        pipe.xrevrange(stream(job_id), count=1)
        fields, last = await pipe.execute()
    return fields, last[0][0] if last else _BEGINNING


async def replayable(client: redis.Redis, job_id: str, last_id: str | None) -> bool:
    """Say whether everything after an event that a browser has seen is still there."""
    if last_id is None or not _ID.fullmatch(last_id):
        return False
    return bool(await client.xrange(stream(job_id), last_id, last_id))


async def follow(client: redis.Redis, job_id: str, last_id: str | None) -> AsyncIterator[str]:
    """Yield what a browser has missed, or else the present state, and then each event until the job has ended."""
    if await replayable(client, job_id, last_id):
        position = cast("str", last_id)
    else:
        fields, position = await snapshot(client, job_id)
        yield _event("snapshot", fields, position)
        if fields.get("state") in FINAL:
            return
    while True:
        # Always from the last id: a fresh `$` would lose what came between two reads.
        found = await client.xread({stream(job_id): position}, block=_KEEP_ALIVE_MS, count=100)
        if not found:
            if not await client.exists(key(job_id)):
                return
            yield ": still here\n\n"
            continue
        for position, fields in entries(found):
            yield _event("progress", fields, position)
            if fields.get("state") in FINAL:
                return


def entries(found: Any) -> list[tuple[str, dict[str, str]]]:
    """Return the entries of an XREAD of one stream, in both of the forms that redis-py gives (RESP 2 and 3)."""
    (entries,) = found.values() if isinstance(found, dict) else [found[0][1]]
    # RESP 3 nests the entries of a stream once more.
    return cast("list[tuple[str, dict[str, str]]]", entries[0] if isinstance(entries[0], list) else entries)


def _event(name: str, fields: dict[str, str], event_id: str) -> str:
    data = json.dumps(Snapshot.of(fields).shown())
    return f"id: {event_id}\nevent: {name}\ndata: {data}\n\n"
