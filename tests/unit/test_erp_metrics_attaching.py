"""Which applications are measured: those that are, those that may be something else, those inside of others."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import erp_metrics
from tests.unit.erp_metrics_rig import Rig, rigged
from tests.unit.test_erp_metrics_requests import get, plain, query


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Measuring with a registry of its own."""
    with rigged() as found:
        yield found


def test_a_plain_asgi_application_is_wrapped(rig: Rig) -> None:
    """Its routes are not known, so everything is `unmatched`."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        query()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    wrapped = erp_metrics.instrument(app)
    assert wrapped is not app
    assert erp_metrics.instrument(wrapped) is wrapped
    assert get(wrapped, "/a", "/b")[1].status_code == 204
    assert rig.requests() == {("unmatched", "GET", "204"): 2}

    assert erp_metrics.instrument(None) is None


class _Callable:
    """Not `async` itself: it returns what is to be awaited."""

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return PlainTextResponse(query())(scope, receive, send)


class _Awaitable:
    """As Starlette's HTTPEndpoint: the class is the application."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.arguments = scope, receive, send

    def __await__(self) -> Any:
        return PlainTextResponse(query())(*self.arguments).__await__()


@pytest.mark.parametrize(
    "app", [_Callable(), _Callable().__call__, functools.partial(_Callable.__call__, _Callable()), _Awaitable]
)
def test_an_application_is_what_takes_three_arguments(rig: Rig, app: Any) -> None:
    wrapped = erp_metrics.instrument(app)
    assert wrapped is not app
    assert erp_metrics.instrument(wrapped) is wrapped
    assert get(wrapped, "/a")[0].text == "ok"
    assert rig.requests() == {("unmatched", "GET", "200"): 1}


@pytest.mark.parametrize(
    "app",
    [
        lambda environ, start_response: [environ, start_response],
        lambda environ, start_response, more=None: [environ, start_response, more],
        lambda *arguments: [arguments],
        lambda scope: scope,
        _Callable,
        "app",
        dict,
    ],
)
def test_what_may_be_something_else_stays_as_it_is(rig: Rig, caplog: pytest.LogCaptureFixture, app: Any) -> None:  # noqa: ARG001
    """WSGI's take two arguments."""
    assert erp_metrics.instrument(app) is app
    assert "is no ASGI application" in caplog.text


class _Outer:
    """Middleware like any other's."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(dict(scope), receive, send)


@pytest.mark.parametrize(
    "outside", [lambda app: app, CORSMiddleware, _Outer, lambda app: _Outer(CORSMiddleware(_Outer(app)))]
)
def test_middleware_outside_of_an_application_changes_no_label(rig: Rig, outside: Any) -> None:
    inner = Starlette(routes=[Route("/a/{q}", plain)])
    app = Starlette(routes=[Mount("/m", inner), Route("/kunde/{id:int}", plain)])
    wrapped = erp_metrics.instrument(outside(app))
    get(wrapped, "/m/a/1", "/kunde/7", "/nirgends")
    assert rig.endpoints() == {"/m/a/{q}": 1, "/kunde/{id}": 1}
    assert rig.requests() == {
        ("/m/a/{q}", "GET", "200"): 1,
        ("/kunde/{id}", "GET", "200"): 1,
        ("unmatched", "GET", "404"): 1,
    }
    assert rig.value("erp_http_requests_total", endpoint="/kunde/{id}", method="GET", status="500") == 0


def test_middleware_that_does_not_tell_what_it_is_round(rig: Rig) -> None:
    """A route's own path is all that is known; what is inside of itself is not looked through for ever."""
    app = Starlette(routes=[Route("/kunde/{id:int}", plain)])

    async def outside(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    get(erp_metrics.instrument(outside), "/kunde/7")
    outer = _Outer(app)
    outer.app = outer
    get(erp_metrics.instrument(_Outer(outer)), "/kunde/7")
    get(erp_metrics.instrument(Starlette(routes=[Mount("/m", outer)])), "/m/x")
    assert rig.requests() == {
        ("/kunde/{id}", "GET", "200"): 1,
        ("unmatched", "GET", "500"): 1,
        ("/m/{path}", "GET", "500"): 1,
    }


def test_an_application_that_runs_already_is_measured_too(rig: Rig) -> None:
    app = Starlette(routes=[Route("/x", plain)])
    get(app, "/x")
    erp_metrics.instrument(app)
    get(app, "/x")
    assert rig.requests() == {("/x", "GET", "200"): 1}
