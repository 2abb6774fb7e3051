"""It fails open: whatever breaks in measuring, requests and queries go on, and one line is logged."""

import asyncio
import logging
import socket
import sqlite3
from collections.abc import Iterator
from typing import Any

import prometheus_client
import psycopg_pool
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

import erp_metrics
from erp_metrics import (
    asgi,
    connections,
    faults,
    groups,
    journal,
    measure,
    metrics,
    names,
    patching,
    psycopg_hooks,
    routes,
    setup,
    tallies,
)
from tests.unit.erp_metrics_rig import Rig, rigged
from tests.unit.test_erp_metrics_requests import get


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Measuring with a registry of its own."""
    with rigged() as found:
        yield found


def _broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


def _application() -> FastAPI:
    app = FastAPI()

    @app.get("/bestand/{artikel_id}")
    def stock(artikel_id: int) -> int:
        with sqlite3.connect(":memory:") as connection:
            return int(connection.execute("SELECT ?", (artikel_id,)).fetchone()[0])

    @app.get("/engine")
    def engine() -> int:
        with create_engine("sqlite://").connect() as connection:
            return int(connection.execute(text("SELECT 7")).scalar_one())

    return app


def _still_works(app: Any) -> None:
    answers = get(app, "/bestand/3", "/engine", "/nirgends", "/bestand/3")
    assert [answer.status_code for answer in answers] == [200, 200, 404, 200]
    assert [answer.json() for answer in answers[:2]] == [3, 7]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (names.Names, "of"),
        (metrics.Metrics, "query"),
        (metrics.Metrics, "endpoint"),
        (metrics.Metrics, "settle"),
        (metrics.Metrics, "count_request"),
        (metrics.Metrics, "add"),
        (metrics.Metrics, "start_endpoint"),
        (routes.RouteTable, "build"),
        (routes.RouteTable, "template"),
        (asgi.HttpRequest, "__init__"),
        (asgi.HttpRequest, "find_template"),
        (measure.Recorder, "_learn_text"),
        (measure.Recorder, "series"),
        (tallies.Series, "settle"),
        (connections, "perf_counter"),
        (groups.Group, "cells"),
    ],
)
def test_requests_and_queries_go_on(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: object,
    name: str,
) -> None:
    """Each part in turn raises; what it was for is logged, once per place, and nothing else happens."""
    app = erp_metrics.instrument(_application())
    monkeypatch.setattr(owner, name, _broken)
    _still_works(app)
    _still_works(app)
    # As when the numbers are shown.
    for refresh in rig.recorder.metrics.refreshers:
        refresh()
    logged = [record for record in caplog.records if record.name == "erp_metrics"]
    assert len(logged) == len({record.getMessage() for record in logged})
    assert all(record.levelno == logging.ERROR and record.exc_info for record in logged)
    assert logged


def test_a_fork_whose_metrics_cannot_begin_anew_counts_no_parents_queries(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its journal begins anew all the same, with a lock that no thread of the parent's holds."""
    measure.done("SELECT 1", 0, 1)
    held = journal._State.lock
    monkeypatch.setattr(measure.Recorder, "restart", _broken)
    measure.restart()
    assert not journal.ended
    assert journal._State.lock is not held
    assert [record.name for record in caplog.records] == ["erp_metrics"]
    assert rig.queries() == {}


def test_a_registry_that_refuses_leaves_the_application_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The application has a metric of one of our names: nothing is measured, everything works."""
    setup.remove()
    faults.forget()
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("erp_http_requests", "The application's own.", registry=registry)
    monkeypatch.setattr(metrics.Metrics.__init__, "__defaults__", (registry,))
    app = _application()
    assert erp_metrics.instrument(app, metrics_port=1, queries=["x"]) is app
    assert not app.user_middleware
    assert "Duplicated timeseries" in caplog.text
    # All or none: nothing of ours is left in it.
    assert [metric.name for metric in registry.collect()] == ["erp_http_requests"]
    _still_works(app)


def test_a_driver_that_has_changed_is_not_measured_and_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A hook that cannot be installed leaves the others in."""
    monkeypatch.setattr(psycopg_hooks, "_execute", _broken)
    with rigged() as rig:
        _still_works(erp_metrics.instrument(_application()))
        assert rig.queries() == {"select": 1}
    assert caplog.text.count("measuring failed in") == 1


def test_pools_that_have_changed_are_not_counted_and_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what takes other arguments than we know, nothing is hooked, and what was hooked before is taken out."""
    pool = psycopg_pool.AsyncConnectionPool

    async def putconn(self: Any, conn: Any, how: str) -> None:
        """One of tomorrow's."""

    monkeypatch.setattr(pool, "putconn", putconn)
    before = {one: (one.getconn, one.putconn) for one in (psycopg_pool.ConnectionPool, pool)}
    with rigged():
        assert {one: (one.getconn, one.putconn) for one in before} == before
        assert patching.installed()
    assert "AsyncConnectionPool.putconn takes self, conn, how: its connections are not counted" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"queries": 3}, "measuring failed"),
        ({"queries": "artikel"}, "queries is a list of names, not 'artikel'; nothing is measured"),
        ({"metrics_port": "8001"}, "metrics_port is a number up to 65535, not '8001'"),
        ({"metrics_port": 65536}, "not 65536"),
        ({"statements": {1: "artikel"}}, "not 'artikel' to 1"),
        ({"statements": {"SELECT 1": 2}}, "not 2 to 'SELECT 1'"),
        ({"statements": 7}, "nothing is measured"),
        ({"max_query_names": -5}, "max_query_names is a whole number from 0 on, not -5"),
        ({"slow_seconds": 0}, "slow_seconds is above 0, not 0"),
        ({"slow_seconds": "1"}, "nothing is measured"),
    ],
)
def test_arguments_that_make_no_sense_break_nothing(
    caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], said: str
) -> None:
    """They are logged, and nothing is hooked."""
    setup.remove()
    app = _application()
    assert erp_metrics.instrument(app, **arguments) is app
    assert said in caplog.text
    assert not patching.installed()
    _still_works(app)
    setup.remove()


def test_a_port_in_use_is_one_logged_line(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    app = _application()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert erp_metrics.instrument(app, metrics_port=port) is app
    (line,) = [record.getMessage() for record in caplog.records if record.name == "erp_metrics"]
    assert line == (
        f"no metrics on 127.0.0.1:{port}: Address already in use (another process of this application? for several, "
        "set PROMETHEUS_MULTIPROC_DIR); the application goes on without"
    )
    _still_works(app)
    assert rig.requests()["/engine", "GET", "200"] == 1


def test_what_the_application_raises_is_its_own(rig: Rig) -> None:
    """Errors pass unchanged, and failed queries are counted with their duration."""
    with create_engine("sqlite://").connect() as connection, pytest.raises(OperationalError, match="no such table"):
        connection.execute(text("SELECT * FROM weg"))
    assert rig.queries() == {"select_weg": 1}
    assert rig.errors() == {("select_weg", "none"): 1}

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise KeyError("mine")

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(erp_metrics.instrument(app)(scope, None, None))
    assert rig.requests() == {("unmatched", "GET", "500"): 1}


def test_other_drivers_are_counted_by_sqlalchemys_events_once(rig: Rig) -> None:
    """Including executemany; instrumenting again hooks nothing again."""
    hooked = patching.mark()
    erp_metrics.instrument(None)
    assert patching.mark() == hooked != (0, 0)
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        assert rig.value("erp_db_active_connections") == 1
        connection.execute(text("CREATE TABLE lager (id int)"))
        with erp_metrics.query("einlagern"):
            connection.execute(text("INSERT INTO lager VALUES (:id)"), [{"id": 1}, {"id": 2}, {"id": 3}])
        connection.execute(text("/* name: zaehlen */ SELECT count(*) FROM lager"))
    assert rig.queries() == {"create": 1, "einlagern": 1, "zaehlen": 1}
    # SQLite does not say how many rows a query returns.
    assert rig.rows() == {"einlagern": 3}
    with engine.connect() as connection:
        connection.invalidate()
        assert rig.value("erp_db_active_connections") == 0
    with engine.connect() as connection:
        connection.detach()
        assert rig.value("erp_db_active_connections") == 0
    assert rig.value("erp_db_active_connections") == 0
