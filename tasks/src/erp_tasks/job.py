"""A job's state in Redis: a hash that holds how it stands now, and a stream of how it came there."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import redis

State = Literal["queued", "running", "retrying", "succeeded", "failed"]
FINAL: frozenset[str] = frozenset({"succeeded", "failed"})
ATTEMPTS = 5
# Who runs now, by the time (Unix seconds of Redis' clock) until which its worker has said that it lives.
LEASES = "erp_tasks:leases"
_KEEP_SECONDS = 7 * 86400
_EVENTS = 1000


def key(job_id: str) -> str:
    """Return the key of a job's hash."""
    return f"erp_tasks:job:{job_id}"


def stream(job_id: str) -> str:
    """Return the key of a job's stream of events."""
    return f"{key(job_id)}:events"


def now(client: redis.Redis) -> float:
    """Return the time by Redis' clock, the only one that all workers share, in Unix seconds."""
    seconds, microseconds = client.time()
    return seconds + microseconds / 1e6


@dataclass(frozen=True)
class Snapshot:
    """How a job stands; `done` and `total` count in a unit of the task's own, times are Unix seconds."""

    task: str
    state: State
    done: int
    total: int
    attempt: int
    created: float
    updated: float
    message: str

    @classmethod
    def of(cls, fields: dict[str, str]) -> "Snapshot":
        """Return the snapshot of a job's hash, or of an event."""
        return cls(
            task=fields.get("task", ""),
            state=cast("State", fields.get("state", "queued")),
            done=int(fields.get("done", 0)),
            total=int(fields.get("total", 0)),
            attempt=int(fields.get("attempt", 0)),
            created=float(fields.get("created", 0)),
            updated=float(fields.get("updated", 0)),
            message=fields.get("message", ""),
        )

    def shown(self) -> dict[str, Any]:
        """Return what people see; `percent` is None as long as the whole is unknown."""
        percent = 100.0 if self.state == "succeeded" else None
        if percent is None and self.total:
            percent = round(100 * self.done / self.total, 1)
        return {
            "task": self.task,
            "state": self.state,
            "progress": {"done": self.done, "total": self.total, "percent": percent},
            "attempt": self.attempt,
            "created": self.created,
            "updated": self.updated,
            "message": self.message,
        }


class Job:
    """The worker's side: every change writes hash and stream in one MULTI."""

    def __init__(self, client: redis.Redis, job_id: str) -> None:
        """Take a client that decodes responses."""
        self._client = client
        self.id = job_id
        self._state: dict[str, Any] = {}

    def begin(self, task: str, arguments: Mapping[str, Any]) -> int:
        """Note that a worker took the job, and return the number of this attempt, from 1 on."""
        attempt = self._client.hincrby(key(self.id), "attempt", 1)
        self._client.hset(key(self.id), "arguments", json.dumps(arguments))
        self._write(task=task, state="running", done=0, total=0, attempt=attempt, message="")
        return attempt

    def progress(self, done: int, total: int) -> None:
        """Note how much is done."""
        self._write(state="running", done=done, total=total)

    def end(self, state: State, message: str = "", result: Any = None) -> None:
        """Note that the job ended or waits for its next attempt; a result is kept beside the state."""
        self._write(None if result is None else json.dumps(result), state=state, message=message)

    def over(self) -> bool:
        """Say whether the job has ended before: this is a late second delivery of it."""
        return self._client.hget(key(self.id), "state") in FINAL

    def lease(self, seconds: float) -> None:
        """Say that the job's worker lives, and will say so again within so many seconds."""
        self._client.zadd(LEASES, {self.id: now(self._client) + seconds})

    def release(self) -> None:
        """Say that nobody has to watch over the job any more."""
        self._client.zrem(LEASES, self.id)

    def _write(self, result: str | None = None, /, **changes: str | int) -> None:
        if not self._state:
            self._state = dict(cast("dict[str, str]", self._client.hgetall(key(self.id))))
            for unlisted in ("result", "arguments"):
                self._state.pop(unlisted, None)
        self._state |= changes | {"updated": round(time.time(), 3)}
        fields = cast("dict[Any, Any]", self._state | ({"result": result} if result is not None else {}))
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(key(self.id), mapping=fields)
            pipe.xadd(stream(self.id), cast("dict[Any, Any]", self._state), maxlen=_EVENTS, approximate=True)
            pipe.expire(key(self.id), _KEEP_SECONDS)
            pipe.expire(stream(self.id), _KEEP_SECONDS)
            pipe.execute()
