"""Requests: their templates, their numbers, and that the application notices nothing."""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

import erp_metrics
from erp_metrics import journal, measure
from erp_metrics.journal import BATCH
from erp_metrics.routes import RouteTable
from tests.unit.erp_metrics_rig import Rig, rigged


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Measuring with a registry of its own."""
    with rigged() as found:
        yield found


def get(app: Any, *paths: str, method: str = "GET", root: str = "") -> list[httpx.Response]:
    """Answer requests in turn, without a server; what the application raises becomes 500."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, root_path=root)
        async with httpx.AsyncClient(transport=transport, base_url="http://erp") as client:
            return [await client.request(method, path) for path in paths]

    return asyncio.run(ask())


def query() -> str:
    """Stand for a database query."""
    measure.end(measure.begin("SELECT 1"))
    return "ok"


async def plain(_request: Request) -> Response:
    """Answer after a query."""
    return PlainTextResponse(query())


def fastapi() -> FastAPI:
    """An application with every kind of route."""
    app, inner, deep, outer = FastAPI(), FastAPI(), APIRouter(), APIRouter()
    erp_metrics.instrument(app)

    @app.get("/artikel/{artikel_id}")
    def article(artikel_id: int) -> str:  # noqa: ARG001 - in a thread
        return query()

    @app.post("/artikel/neu")
    async def create() -> str:
        return query()

    @deep.get("/{charge_id}/weg/{ort:path}")
    async def trace(charge_id: str, ort: str) -> str:  # noqa: ARG001
        return query()

    @inner.get("/seite/{nummer}")
    async def page(nummer: int) -> str:  # noqa: ARG001
        return query()

    @app.get("/kaputt")
    async def broken() -> str:
        query()
        raise RuntimeError("on purpose")

    outer.include_router(deep, prefix="/chargen")
    app.include_router(outer, prefix="/api/{mandant}")
    app.mount("/portal/{sprache}", inner)
    return app


def test_templates_of_fastapi(rig: Rig) -> None:
    """Included and mounted routes have their whole path; nothing of a concrete path is a label."""
    app = fastapi()
    answers = get(
        app,
        "/artikel/1",
        "/artikel/2",
        "/artikel/neu",
        "/api/m1/chargen/c9/weg/a/b/c",
        "/portal/de/seite/3",
        "/portal/de/nirgends",
        "/wp-login.php",
        "/kaputt",
    )
    assert [answer.status_code for answer in answers] == [200, 200, 422, 200, 200, 404, 404, 500]
    assert rig.requests() == {
        ("/artikel/{artikel_id}", "GET", "200"): 2,
        # /artikel/neu takes POST only: by GET it is an article that is no number.
        ("/artikel/{artikel_id}", "GET", "422"): 1,
        ("/api/{mandant}/chargen/{charge_id}/weg/{ort}", "GET", "200"): 1,
        ("/portal/{sprache}/seite/{nummer}", "GET", "200"): 1,
        ("unmatched", "GET", "404"): 2,
        ("/kaputt", "GET", "500"): 1,
    }
    assert rig.endpoints() == {
        "/artikel/{artikel_id}": 2,
        "/api/{mandant}/chargen/{charge_id}/weg/{ort}": 1,
        "/portal/{sprache}/seite/{nummer}": 1,
        "/kaputt": 1,
    }
    assert get(app, "/artikel/neu", method="POST")[0].is_success
    assert get(app, "/kaputt", method="BREW")[0].status_code == 405
    assert rig.requests()["/artikel/neu", "POST", "200"] == 1
    assert rig.requests()["/kaputt", "other", "405"] == 1


def test_templates_of_starlette(rig: Rig, tmp_path: Any) -> None:
    """Convertors, nested mounts and static files."""
    (tmp_path / "a.css").write_text("")
    nested = Mount("/b", routes=[Route("/{zahl:int}", plain)])
    app = Starlette(routes=[Mount("/a", routes=[nested]), Mount("/static", StaticFiles(directory=tmp_path))])
    assert erp_metrics.instrument(app) is app
    assert erp_metrics.instrument(app) is app
    get(app, "/a/b/7", "/a/b/x", "/static/a.css", "/static/none.css")
    assert rig.requests() == {
        ("/a/b/{zahl}", "GET", "200"): 1,
        ("unmatched", "GET", "404"): 1,
        ("/static/{path}", "GET", "200"): 1,
        ("/static/{path}", "GET", "404"): 1,
    }


def test_what_a_mounted_application_does_not_know_is_no_later_routes(rig: Rig) -> None:
    """It answers itself, and a catch-all behind it is not asked; one inside of it is."""
    inner = Starlette(routes=[Mount("/tief", routes=[Route("/a", plain)]), Route("/b", plain)])
    other = Starlette(routes=[Route("/a", plain), Route("/{rest:path}", plain)])
    app = Starlette(
        routes=[
            Host("erp.example", Starlette(routes=[Route("/h", plain)])),
            Mount("/m", inner),
            Mount("/alles", other),
            Route("/{rest:path}", plain, methods=["GET", "POST"]),
        ]
    )
    erp_metrics.instrument(app)
    get(app, "/m/tief/a", "/m/tief/nirgends", "/m/nirgends", "/m/b", "/alles/x", "/m", "/sonst")
    get(app, "/m/b", method="POST")
    assert rig.requests() == {
        ("/m/tief/a", "GET", "200"): 1,
        ("unmatched", "GET", "404"): 2,
        ("/m/b", "GET", "200"): 1,
        ("/m/b", "POST", "405"): 1,
        ("/alles/{rest}", "GET", "200"): 1,
        ("/{rest}", "GET", "200"): 2,
    }
    assert rig.value("erp_http_requests_total", endpoint="/m/{path}", method="GET", status="200") is None


def test_a_server_under_a_prefix_matches_without_it(rig: Rig) -> None:
    app = FastAPI()
    app.add_api_route("/lager", query)
    erp_metrics.instrument(app)
    get(app, "/erp/lager", "/lager", root="/erp")
    assert rig.requests() == {("/lager", "GET", "200"): 2}


def test_known_routes_start_at_zero_once_the_application_is_up(rig: Rig) -> None:
    """Also those that the startup adds; the first request and the first query are then an increase."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.add_route("/spaet", plain, methods=["POST"])
        yield

    app = Starlette(routes=[Route("/{name}", plain)], lifespan=lifespan)
    erp_metrics.instrument(app, queries=["artikel_suche"])
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    for endpoint, method in (("/{name}", "GET"), ("/spaet", "POST")):
        assert rig.value("erp_endpoint_db_queries_total", endpoint=endpoint) == 0
        assert rig.value("erp_http_request_duration_seconds_count", endpoint=endpoint) == 0
        for status in ("200", "500"):
            assert rig.value("erp_http_requests_total", endpoint=endpoint, method=method, status=status) == 0
    for endpoint in ("none", "unmatched"):
        assert rig.value("erp_endpoint_db_queries_total", endpoint=endpoint) == 0
    for name in ("artikel_suche", "other"):
        assert rig.value("erp_db_query_count_total", query_name=name) == 0
        assert rig.value("erp_db_query_duration_seconds_bucket", query_name=name, le="1.0") == 0


def test_queries_outside_of_requests_have_no_endpoint(rig: Rig) -> None:
    query()
    assert rig.endpoints() == {"none": 1}


def test_a_request_is_over_for_whoever_made_it(rig: Rig) -> None:
    """In the same task: what is asked after a request is none of its queries."""
    app = Starlette(routes=[Route("/x", plain)])
    erp_metrics.instrument(app)

    async def both() -> None:
        await _call(app, "/x")
        query()

    asyncio.run(both())
    assert rig.endpoints() == {"/x": 1, "none": 1}


def test_a_block_names_its_requests_queries(rig: Rig) -> None:
    """What a block names is its request's, in blocks of blocks too, and in requests that begin in it."""

    async def named(request: Request) -> Response:
        query()
        with erp_metrics.query("outer"):
            query()
            with erp_metrics.query("inner"):
                query()
            await _call(inner, "/y")
            query()
        return await plain(request)

    inner = Starlette(routes=[Route("/y", plain)])
    app = Starlette(routes=[Route("/x", named)])
    for one in (inner, app):
        erp_metrics.instrument(one)
    get(app, "/x")
    assert rig.endpoints() == {"/x": 5, "/y": 1}
    assert rig.value("erp_http_request_db_queries_sum", endpoint="/x") == 5
    assert rig.queries() == {"outer": 3, "inner": 1, "select": 2}


def test_a_block_may_be_left_anywhere(rig: Rig) -> None:
    """In another context than it was entered in, after its request, by several at once: nothing is raised."""
    block = erp_metrics.query("rows")

    def rows() -> Iterator[str]:
        # Starlette takes each step of it in a thread, and in a copy of the context.
        with block, block:
            yield query()
            yield query()

    async def stream(_request: Request) -> Response:
        return StreamingResponse(rows())

    async def kept(_request: Request) -> Response:
        block.__enter__()
        return PlainTextResponse(query())

    app = Starlette(routes=[Route("/x", stream), Route("/kept", kept)])
    erp_metrics.instrument(app)

    async def afterwards() -> None:
        await _call(app, "/kept")
        block.__exit__(None, None, None)
        query()

    assert [answer.text for answer in get(app, "/x", "/x")] == ["okok"] * 2
    asyncio.run(afterwards())
    assert rig.endpoints() == {"/x": 4, "/kept": 1, "none": 1}


def test_a_block_that_outlives_what_is_round_it(rig: Rig) -> None:
    """A generator that is left later gives back the context without the blocks that were left before."""

    def rows(name: str) -> Iterator[None]:
        with erp_metrics.query(name):
            yield

    def kept(*generators: Iterator[None]) -> Response:
        with erp_metrics.query("outer"):
            for one in generators:
                next(one)
            query()
        return PlainTextResponse(query())

    async def answer(_request: Request) -> Response:
        first, second = rows("first"), rows("second")
        kept(first, second)
        for one in (first, second):
            assert next(one, None) is None
        return PlainTextResponse(query())

    app = Starlette(routes=[Route("/x", answer)])
    erp_metrics.instrument(app)
    get(app, "/x")
    assert rig.queries() == {"second": 2, "select": 1}
    assert rig.endpoints() == {"/x": 3}


def test_what_waits_to_be_counted_is_never_more_than_a_batch(rig: Rig) -> None:
    """Nobody asks for the numbers: what was noted is counted all the same, and what lasted long at once."""

    async def broken(_request: Request) -> Response:
        raise RuntimeError("on purpose")

    async def nothing(_request: Request) -> Response:
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/x", nothing), Route("/kaputt", broken)])
    erp_metrics.instrument(app)
    for path in ("/x", "/kaputt"):
        get(app, *[path] * (BATCH - 1))
        assert len(journal.ended) < BATCH
    for _ in range(BATCH):
        query()
    assert len(journal.ended) < BATCH
    measure.done("SELECT pg_sleep(1)", 1, 1)
    assert not journal.ended
    assert rig.endpoints() == {"none": BATCH + 1}
    assert rig.requests() == {("/x", "GET", "200"): BATCH - 1, ("/kaputt", "GET", "500"): BATCH - 1}


def test_a_request_ends_once(rig: Rig) -> None:
    """With its last part, however many come."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2):
            await send({"type": "http.response.body"})

    async def accept(_message: Any) -> None:
        pass

    wrapped = erp_metrics.instrument(app)
    scope = {"type": "http", "method": "GET", "path": "/"}
    asyncio.run(wrapped(scope, None, accept))
    assert rig.requests() == {("unmatched", "GET", "200"): 1}


def test_a_request_that_waits_to_be_counted_keeps_no_connection(rig: Rig) -> None:
    """The server's `send` holds it; who sends when the application has returned, is told."""

    class Connection:
        async def send(self, message: Any) -> None:
            pass

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        sends.append(send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    sends: list[Any] = []
    connection = Connection()
    gone = weakref.ref(connection)
    asyncio.run(erp_metrics.instrument(app)({"type": "http", "method": "GET", "path": "/"}, None, connection.send))
    del connection
    assert len(journal.ended) == 1
    assert gone() is None
    with pytest.raises(RuntimeError, match="is over"):
        asyncio.run(sends[0]({"type": "http.response.trailers"}))
    assert rig.requests() == {("unmatched", "GET", "200"): 1}


def test_background_tasks_count_for_the_endpoint_but_not_into_its_duration(rig: Rig) -> None:
    app = FastAPI()
    erp_metrics.instrument(app)
    seen: list[float | None] = []

    def later() -> None:
        seen.append(rig.value("erp_http_request_duration_seconds_count", endpoint="/bericht"))
        query()

    @app.post("/bericht")
    def report(tasks: BackgroundTasks) -> str:
        tasks.add_task(later)
        return "begun"

    get(app, "/bericht", method="POST")
    assert seen == [1]
    assert rig.endpoints() == {"/bericht": 1}


def test_queries_of_background_tasks_are_none_of_their_request(rig: Rig) -> None:
    """Whether or not the request has been counted by then: nobody asks for the numbers in between."""
    app = FastAPI()
    erp_metrics.instrument(app)

    @app.post("/bericht")
    async def report(tasks: BackgroundTasks) -> str:
        tasks.add_task(query)
        return query()

    get(app, "/bericht", method="POST")
    assert rig.endpoints() == {"/bericht": 2}
    assert rig.value("erp_http_request_db_queries_sum", endpoint="/bericht") == 1


def test_a_streamed_response_lasts_until_its_last_part(rig: Rig) -> None:
    open_requests: list[float | None] = []

    async def parts() -> AsyncIterator[str]:
        for part in "abc":
            open_requests.append(rig.value("erp_http_request_duration_seconds_count", endpoint="/strom"))
            yield part

    app = Starlette(routes=[Route("/strom", lambda _: StreamingResponse(parts()))])
    erp_metrics.instrument(app)
    assert get(app, "/strom")[0].text == "abc"
    assert open_requests == [0, 0, 0]
    assert rig.value("erp_http_request_duration_seconds_count", endpoint="/strom") == 1


def test_a_request_that_is_given_up_counts(rig: Rig) -> None:
    async def forever(_request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = Starlette(routes=[Route("/ewig", forever)])
    erp_metrics.instrument(app)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(_call(app, "/ewig"), 0.05))
    assert rig.requests() == {("/ewig", "GET", "499"): 1}


async def _call(app: Any, path: str, kind: str = "http") -> list[Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect" if kind == "websocket" else "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "GET", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    await app(scope, receive, send)
    return sent


def test_queries_of_a_websocket_have_its_template(rig: Rig) -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        query()

    app = Starlette(routes=[WebSocketRoute("/ws/{raum}", talk)])
    erp_metrics.instrument(app)
    asyncio.run(_call(app, "/ws/7", "websocket"))
    assert rig.endpoints() == {"/ws/{raum}": 1}
    assert rig.requests() == {}


def test_scanners_leave_no_labels_and_little_memory(rig: Rig) -> None:
    app = fastapi()
    get(app, *(f"/scan/{number}.php" for number in range(1500)))
    assert set(rig.requests()) == {("unmatched", "GET", "404")}
    table = RouteTable(app)
    table.build()
    for number in range(5000):
        assert table.template("GET", f"/scan/{number}.php", "") is None
    assert len(table._cache) <= 1000
