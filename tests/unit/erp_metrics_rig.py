"""erp_metrics with a registry of its own: nothing of one test is seen by the next."""

import contextlib
import logging
from collections.abc import Iterator

from prometheus_client import CollectorRegistry

from erp_metrics import faults, measure, setup
from erp_metrics.measure import Recorder
from erp_metrics.metrics import Metrics
from erp_metrics.names import Names


class Rig:
    """A recorder and what it has shown."""

    def __init__(self, limit: int = 100) -> None:
        """Make it; `limit` bounds the query names."""
        self.registry = CollectorRegistry()
        self.recorder = Recorder(Metrics(1.0, self.registry), Names(limit))

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample, None where there is none."""
        return self.registry.get_sample_value(name, labels)

    def queries(self) -> dict[str, float]:
        """Return the counts of queries by name, those at 0 left out; durations were observed for as many."""
        counts = self._by("erp_db_query_count_total", "query_name")
        assert counts == self._by("erp_db_query_duration_seconds_count", "query_name")
        return counts

    def rows(self) -> dict[str, float]:
        """Return the rows of queries by name, those at 0 left out."""
        return self._by("erp_db_query_rows_total", "query_name")

    def errors(self) -> dict[tuple[str, str], float]:
        """Return the errors of queries by name and class, those at 0 left out."""
        return {
            (sample.labels["query_name"], sample.labels["sqlstate_class"]): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "erp_db_query_errors_total" and sample.value
        }

    def endpoints(self) -> dict[str, float]:
        """Return the counts of queries by endpoint, those at 0 left out."""
        return self._by("erp_endpoint_db_queries_total", "endpoint")

    def sources(self) -> dict[str, float]:
        """Return the counts of queries by what named them, those at 0 left out."""
        return self._by("erp_db_query_names_total", "source")

    def requests(self) -> dict[tuple[str, str, str], float]:
        """Return the counts of requests by endpoint, method and status, those at 0 left out."""
        return {
            (sample.labels["endpoint"], sample.labels["method"], sample.labels["status"]): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "erp_http_requests_total" and sample.value
        }

    def seconds(self, name: str) -> float:
        """Return the seconds spent on a query name."""
        return self.value("erp_db_query_duration_seconds_sum", query_name=name) or 0

    def _by(self, name: str, label: str) -> dict[str, float]:
        samples = (sample for metric in self.registry.collect() for sample in metric.samples if sample.name == name)
        return {sample.labels[label]: sample.value for sample in samples if sample.value}


@contextlib.contextmanager
def rigged(limit: int = 100) -> Iterator[Rig]:
    """Measure this process with a registry of its own, and take every hook out again."""
    setup.remove()
    faults.forget()
    found = Rig(limit)
    measure.use(found.recorder)
    setup.instrument(
        None, metrics_port=None, metrics_listen="", queries=(), statements={}, max_query_names=0, slow_seconds=1
    )
    try:
        yield found
    finally:
        setup.remove()
        logging.getLogger("erp_metrics").setLevel(logging.NOTSET)
