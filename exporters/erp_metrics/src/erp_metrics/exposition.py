"""The metrics' own HTTP server, off the application's public port."""

import errno
import os
from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from erp_metrics.faults import log, report
from erp_metrics.store import bury


class _Processes(MultiProcessCollector):
    """The figures of all processes; what a dead one had checked out is no longer checked out."""

    def __init__(self, directory: str) -> None:
        super().__init__(None, directory)  # type: ignore[no-untyped-call]
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Return the sums over all processes."""
        bury(self._directory)
        return list(super().collect())  # type: ignore[no-untyped-call]


def serve(port: int, listen: str) -> None:
    """Serve /metrics from a daemon thread; where that cannot be, log why, once, and go on without."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    registry = REGISTRY
    try:
        if directory:
            registry = CollectorRegistry()
            registry.register(_Processes(directory))
        start_http_server(port, addr=listen, registry=registry)
    except OSError as fault:
        if directory and fault.errno == errno.EADDRINUSE:
            log.info("another process serves the metrics on %s:%d", listen, port)
        else:
            advice = ""
            if fault.errno == errno.EADDRINUSE:
                advice = " (another process of this application? for several, set PROMETHEUS_MULTIPROC_DIR)"
            reason = fault.strerror or fault
            log.error("no metrics on %s:%d: %s%s; the application goes on without", listen, port, reason, advice)
    except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
        report("exposition.serve", fault)
