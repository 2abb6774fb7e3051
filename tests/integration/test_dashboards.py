"""A real Prometheus measures a real PostgreSQL and a made-up ERP: every panel has data, every alert fires."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

import alert_rules
import dashboards
from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_exporter_process import running, write_config
from tests.integration.prometheus_process import prometheus_server, query

# 5 minutes become 6 seconds, at one scrape a second.
FACTOR = 0.02


def _erp(registry: CollectorRegistry) -> Callable[[], None]:
    count = Counter("erp_db_query_count", "-", ["query_name"], registry=registry)
    duration = Histogram(
        "erp_db_query_duration_seconds", "-", ["query_name"], buckets=(0.1, 0.5, 1, 5), registry=registry
    )
    Gauge("erp_db_active_connections", "-", registry=registry).set(3)
    Counter("erp_db_connection_seconds", "-", registry=registry).inc()
    queries = Counter("erp_endpoint_db_queries", "-", ["endpoint"], registry=registry)
    requests = Counter("erp_http_requests", "-", ["endpoint", "method", "status"], registry=registry)
    seconds = Histogram("erp_http_request_duration_seconds", "-", ["endpoint"], buckets=(0.5, 1, 5), registry=registry)

    def work() -> None:
        for name, took in (("artikel_suche", 0.05), ("chargen_spur", 3.0)):
            count.labels(name).inc()
            duration.labels(name).observe(took)
        queries.labels("/chargen/{id}/spur").inc(5)
        requests.labels("/chargen/{id}/spur", "GET", "200").inc()
        seconds.labels("/chargen/{id}/spur").observe(3.1)

    return work


def _node(registry: CollectorRegistry) -> Callable[[], None]:
    cpu = Counter("node_cpu_seconds", "-", ["cpu", "mode"], registry=registry)
    for part, size in (("MemAvailable", 1e9), ("MemTotal", 4e9)):
        Gauge(f"node_memory_{part}_bytes", "-", registry=registry).set(size)

    def work() -> None:
        cpu.labels("0", "idle").inc(0.1)
        cpu.labels("0", "user").inc(0.1)

    return work


@pytest.fixture(scope="module")
def targets(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Exporters by job, whose figures move on five times a second; that of PostgreSQL is ours."""
    found: dict[str, str] = {}
    works: list[Callable[[], object]] = []
    stop = threading.Event()
    with ExitStack() as stack:
        postgres.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        exporter = stack.enter_context(running(write_config(tmp_path_factory.mktemp("pgstat"), postgres.dsn())))
        found["postgres"] = f"127.0.0.1:{exporter.port}"
        works.append(lambda: postgres.execute("SELECT count(*) FROM pg_class"))
        for job, fill in (("erp", _erp), ("node", _node)):
            registry = CollectorRegistry()
            works.append(fill(registry))
            server, _ = start_http_server(0, addr="127.0.0.1", registry=registry)
            stack.callback(server.shutdown)
            found[job] = f"127.0.0.1:{server.server_port}"

        def move() -> None:
            while not stop.wait(0.2):
                for work in works:
                    work()

        mover = threading.Thread(target=move)
        mover.start()
        stack.callback(mover.join)
        stack.callback(stop.set)
        yield found


@pytest.fixture(scope="module")
def prometheus(
    need_program: Callable[[str, str], str], targets: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Prometheus with our rules, their windows shortened."""
    directory = tmp_path_factory.mktemp("prometheus")
    rules = alert_rules.rule_files(window_factor=FACTOR) | {
        "thresholds.yml": alert_rules.thresholds(endpoint_limits={"/chargen/{id}/spur": 60})
    }
    for name, text in rules.items():
        (directory / name).write_text(text)
    scrape = [
        {"job_name": job, "static_configs": [{"targets": [target], "labels": {"host": "lab"}}]}
        for job, target in targets.items()
    ]
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": sorted(rules),
        "scrape_configs": scrape,
    }
    with prometheus_server(need_program("prometheus", "prometheus"), directory, configuration) as client:
        yield client


@pytest.mark.parametrize(("uid", "title", "expr"), dashboards.queries())
def test_panel_query_returns_data(prometheus: httpx.Client, uid: str, title: str, expr: str) -> None:
    filled = _filled(expr)
    wait_until(lambda: bool(query(prometheus, filled)), f"{uid}, {title}: {filled} returns data")
    assert "NaN" not in {sample["value"][1] for sample in query(prometheus, filled)}


def _filled(expr: str) -> str:
    return dashboards.substitute(expr, __rate_interval="6s", __range="10s", __interval="1s")


def test_tiles_tell_the_truth(prometheus: httpx.Client, targets: dict[str, str]) -> None:
    by_title = {title: _filled(expr) for uid, title, expr in dashboards.queries() if uid == "erp-overview"}
    (status,) = query(prometheus, by_title["Status"])
    assert status["value"][1] == "0", "mapped to: Up"
    (down,) = query(prometheus, by_title["Targets"])
    assert down["metric"] == {"job": "none"}
    assert down["value"][1] == "0"
    assert len(query(prometheus, "up")) == len(targets)


def test_slow_queries_are_counted(prometheus: httpx.Client) -> None:
    (tile,) = [expr for _, title, expr in dashboards.queries() if title == "Slow"]
    metric = "erp:db_slow_queries:total"
    grown = f"sum(max_over_time({metric}[1h]) - min_over_time({metric}[1h]))"
    wait_until(lambda: any(float(one["value"][1]) > 50 for one in query(prometheus, grown)), "some were slow")
    (expected,), (found,) = query(prometheus, grown), query(prometheus, _filled(tile))
    assert float(found["value"][1]) == pytest.approx(float(expected["value"][1]), rel=0.25)


@pytest.mark.parametrize(
    ("alert", "labels"),
    [
        ("ErpSlowQuery", {"query_name": "chargen_spur", "severity": "warning"}),
        ("ErpEndpointQueryRate", {"endpoint": "/chargen/{id}/spur", "severity": "info"}),
        ("ErpManySlowQueries", {"severity": "critical"}),
        ("DeadMansSwitch", {"severity": "none"}),
    ],
)
def test_alert_fires_and_explains_itself(prometheus: httpx.Client, alert: str, labels: dict[str, str]) -> None:
    def firing() -> list[dict[str, Any]]:
        alerts = prometheus.get("/api/v1/alerts").json()["data"]["alerts"]
        return [one for one in alerts if one["labels"]["alertname"] == alert and one["state"] == "firing"]

    wait_until(lambda: bool(firing()), f"{alert} fires")
    (found,) = firing()
    assert found["labels"] == {"alertname": alert} | labels
    assert "error" not in found["annotations"]["description"], "a template failed"
    assert "{{" not in "".join(found["annotations"].values())
