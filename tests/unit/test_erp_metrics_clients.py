"""Clients that have gone, told from errors of the application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import erp_metrics
from tests.unit.erp_metrics_rig import Rig, rigged

_SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "root_path": ""}


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Measuring with a registry of its own."""
    with rigged() as found:
        yield found


async def _upload(request: Request) -> Response:
    return Response(await request.body())


async def _sent(_request: Request) -> Response:
    return PlainTextResponse("x")


async def _parts() -> AsyncIterator[str]:
    yield "a"


async def _stream(_request: Request) -> Response:
    return StreamingResponse(_parts())


async def _file_parts() -> AsyncIterator[str]:
    yield ""
    raise FileNotFoundError(2, "on purpose", "x.csv")


async def _file_stream(_request: Request) -> Response:
    return StreamingResponse(_file_parts())


async def _file(_request: Request) -> Response:
    raise FileNotFoundError(2, "on purpose", "x.csv")


async def _service(_request: Request) -> Response:
    raise ConnectionRefusedError(111, "on purpose")


async def _passed_on(request: Request, call_next: Any) -> Response:
    return cast(Response, await call_next(request))


@pytest.mark.parametrize(
    ("endpoint", "status", "layers"),
    [
        (_upload, "499", 0),
        (_upload, "499", 1),
        (_sent, "499", 0),
        (_sent, "499", 1),
        (_stream, "499", 0),
        (_stream, "499", 1),
        (_file_stream, "500", 0),
        (_file, "500", 0),
        (_service, "500", 0),
        (_service, "500", 1),
    ],
)
def test_a_client_that_has_gone_is_told_from_errors_of_the_application(
    rig: Rig, endpoint: Any, status: str, layers: int
) -> None:
    """By what Starlette raises while it reads, and by what a server raises when asked to send, as ASGI 2.4 has it."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            raise BrokenPipeError(32, "gone")

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=_passed_on)] * layers
    app = Starlette(routes=[Route("/", endpoint)], middleware=middleware)
    erp_metrics.instrument(app)
    with contextlib.suppress(Exception):
        asyncio.run(app(_SCOPE | {"asgi": {"version": "3.0", "spec_version": "2.4"}}, receive, send))
    assert rig.requests() == {("/", "GET", status): 1}


def test_a_file_that_the_server_cannot_send_is_the_applications_error(rig: Rig) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/nowhere/x.csv"})

    async def send(message: Any) -> None:
        if "path" in message:
            raise FileNotFoundError(2, "on purpose", message["path"])

    with pytest.raises(FileNotFoundError):
        asyncio.run(erp_metrics.instrument(app)(_SCOPE, None, send))
    assert rig.requests() == {("unmatched", "GET", "500"): 1}


@pytest.mark.parametrize(("own", "status"), [(None, "499"), (ValueError(), "500"), (OSError(), "500")])
def test_a_group_of_errors_is_the_clients_if_all_are(rig: Rig, own: Exception | None, status: str) -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        gone = ExceptionGroup("one", [ClientDisconnect()])
        raise ExceptionGroup("all", [gone, own] if own else [gone])

    with pytest.raises(ExceptionGroup):
        asyncio.run(erp_metrics.instrument(app)(_SCOPE, None, None))
    assert rig.requests() == {("unmatched", "GET", status): 1}
