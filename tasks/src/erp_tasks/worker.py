"""The Celery worker of all queues, with its figures on a port of its own."""

import logging
import threading
from typing import Any

from celery.signals import worker_process_shutdown, worker_ready
from prometheus_client import multiprocess

from erp_tasks import metrics, reclaim
from erp_tasks.app import app, settings
from erp_tasks.config import QUEUES

_log = logging.getLogger(__name__)


def main() -> None:
    """Run until told to stop; SIGTERM waits for running tasks and then gives the rest back to the broker."""
    app.worker_main(
        [
            "worker",
            f"--queues={','.join(QUEUES)}",
            f"--concurrency={settings.concurrency}",
            "--hostname=erp_tasks@%h",
            "--loglevel=INFO",
            "--without-mingle",
            "--without-gossip",
            # A heartbeat that meets a lost broker while the worker stops holds the lock that stopping waits for.
            "--without-heartbeat",
        ]
    )


@worker_ready.connect  # type: ignore[untyped-decorator]
def _serve_metrics(**_: Any) -> None:
    metrics.start_at_zero(name for name in app.tasks if name.startswith("backend.tasks."))
    try:
        metrics.serve_worker(settings.listen, settings.worker_metrics_port, settings.broker)
    except OSError as error:
        _log.critical("cannot serve metrics on %s:%d: %s", settings.listen, settings.worker_metrics_port, error)
        raise SystemExit(1) from error
    threading.Thread(target=reclaim.forever, daemon=True).start()


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _forget_gauges(pid: int, **_: Any) -> None:
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
