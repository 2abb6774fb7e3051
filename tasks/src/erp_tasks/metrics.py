"""Figures of worker and API for Prometheus; a worker's processes share theirs through prometheus_client's files."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

import redis
from celery.exceptions import Ignore, Reject, Retry
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from erp_tasks.config import QUEUES

STARTED = Counter("erp_tasks_started", "Attempts at tasks that began.", ["task"])
SUCCEEDED = Counter("erp_tasks_succeeded", "Tasks that ended well.", ["task"])
FAILED = Counter("erp_tasks_failed", "Tasks that failed for good.", ["task"])
RETRIED = Counter("erp_tasks_retried", "Attempts that failed and are followed by another.", ["task"])
LOST = Counter("erp_tasks_lost", "Attempts whose worker process died.", ["task"])
ABANDONED = Counter("erp_tasks_abandoned", "Jobs queued again since their worker was lost with them.", ["task"])
DURATION = Histogram(
    "erp_tasks_duration_seconds",
    "Duration of attempts that ended, well or not.",
    ["task"],
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)


def start_at_zero(tasks: Iterable[str]) -> None:
    """Make every known task's series exist, so that its first event is an increase."""
    for task in tasks:
        for metric in (STARTED, SUCCEEDED, FAILED, RETRIED, LOST, ABANDONED, DURATION):
            metric.labels(task)


@contextlib.contextmanager
def measured(task: str) -> Iterator[None]:
    """Count and time one attempt."""
    STARTED.labels(task).inc()
    begun = time.monotonic()
    try:
        yield
    except (Ignore, Reject):
        raise
    except Retry:
        RETRIED.labels(task).inc()
        raise
    except Exception:
        FAILED.labels(task).inc()
        raise
    else:
        SUCCEEDED.labels(task).inc()
    finally:
        DURATION.labels(task).observe(time.monotonic() - begun)


class Backlog(Collector):
    """What waits in the broker, asked for at each scrape."""

    def __init__(self, broker: str) -> None:
        """Take the broker's URL."""
        self._client = redis.Redis.from_url(broker, socket_timeout=2, socket_connect_timeout=2)

    def describe(self) -> Iterable[Metric]:
        """Name no metrics beforehand, so that registering does not ask the broker."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the queues' lengths, or only that the broker does not answer."""
        up = GaugeMetricFamily("erp_tasks_broker_up", "Whether the broker answers.")
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for queue in QUEUES:
                    pipe.llen(queue)
                pipe.hlen("unacked")
                *waiting, taken = pipe.execute()
        except redis.RedisError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        length = GaugeMetricFamily("erp_tasks_queue_length", "Tasks that wait for a worker.", labels=["queue"])
        for queue, number in zip(QUEUES, waiting, strict=True):
            length.add_metric([queue], number)
        yield length
        yield GaugeMetricFamily("erp_tasks_unacknowledged", "Tasks that a worker has taken and not ended.", taken)


def serve_worker(listen: str, port: int, broker: str) -> None:
    """Serve the figures of all of this worker's processes, and the backlog. Raises OSError."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, os.environ["PROMETHEUS_MULTIPROC_DIR"])  # type: ignore[no-untyped-call]
    registry.register(Backlog(broker))
    start_http_server(port, addr=listen, registry=registry)
