"""What every task of ours has: a job with progress, a cap on attempts, and figures for Prometheus."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import redis
from celery import Task
from celery.exceptions import Ignore, SoftTimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from erp_tasks import metrics
from erp_tasks.app import settings
from erp_tasks.job import ATTEMPTS, Job

# The longest that a failed attempt waits for the next one.
RETRY_SECONDS = 30

Progress = Callable[[int, int], None]


class TooManyAttemptsError(Exception):
    """A job whose worker died each time is given up, lest it takes down one worker after the other."""


@functools.cache
def client() -> redis.Redis:
    """Return this process's client of the result store, where jobs live."""
    return redis.Redis.from_url(
        settings.results,
        decode_responses=True,
        socket_timeout=10,
        socket_connect_timeout=5,
        health_check_interval=30,
    )


class CountingRequest(Request):  # type: ignore[misc]  # Celery is untyped
    """A request that notes in the worker's main process what the task itself cannot tell any more."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Note a task that was killed because it ignored its soft time limit."""
        super().on_timeout(soft, timeout)
        if not soft:
            metrics.FAILED.labels(self.name).inc()
            Job(client(), self.id).end("failed", f"killed after {timeout:g} s")

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Count tasks whose process died; failures inside a task are counted there."""
        # The pool wraps what it raises to keep its traceback.
        cause = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(cause, (WorkerLostError, SystemExit)):
            metrics.LOST.labels(self.name).inc()
        super().on_failure(exc_info, send_failed_event, return_ok)


class JobTask(Task):  # type: ignore[misc]  # Celery is untyped
    """A task with a job: its arguments are keywords, it gets `progress` beside them, and what it returns is kept."""

    abstract = True
    Request = CountingRequest
    # `progress` is given here and not by the caller, which Celery's check of arguments cannot know.
    typing = False
    throws = (TooManyAttemptsError,)
    # What Celery logs of a result; the ERP's figures do not belong into a log.
    resultrepr_maxsize = 20

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run one attempt; a job that has ended already is not run again."""
        job = Job(client(), self.request.id)
        if job.over():
            raise Ignore
        with metrics.measured(self.name), _alive(job):
            if job.begin(self.name, kwargs) > ATTEMPTS:
                raise TooManyAttemptsError(f"given up: the worker died {ATTEMPTS} times while running it")
            # Not Task.__call__: it would put an empty request over the current one, and retries would lose theirs.
            result = self.run(*args, progress=job.progress, **kwargs)
            job.end("succeeded", result=result)
        return result

    def on_failure(self, exc: Exception, task_id: str, *_: Any) -> None:
        """Note the failure where people look for it; details stay in the worker's log."""
        if isinstance(exc, SoftTimeLimitExceeded):
            message = f"stopped after {settings.soft_time_limit} s"
        else:
            message = f"{type(exc).__name__}: {exc}".strip().splitlines()[0]
        Job(client(), task_id).end("failed", message)

    def on_retry(self, exc: Exception, task_id: str, *_: Any) -> None:
        """Note that another attempt follows, which waits in this worker and could be lost with it."""
        job = Job(client(), task_id)
        job.end("retrying", f"{type(exc).__name__}; trying again")
        job.lease(RETRY_SECONDS + settings.lease)


@contextlib.contextmanager
def _alive(job: Job) -> Iterator[None]:
    """Renew the job's lease as long as this process lives and runs it."""
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(settings.lease / 3):
            # Redis may be away for a while; once it is back, this goes on.
            with contextlib.suppress(redis.RedisError):
                job.lease(settings.lease)

    job.lease(settings.lease)
    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    ended = False
    try:
        yield
        ended = True
    except Exception:
        ended = True
        raise
    finally:
        stop.set()
        renewing.join()
        # Not when terminated, for example since the connection to the broker broke: somebody has to queue it again.
        if ended:
            job.release()
