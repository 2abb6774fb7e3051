"""ASGI middleware: requests by route template, and which request a query belongs to."""

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from traceback import walk_tb
from typing import Any

from erp_metrics.context import Block, current
from erp_metrics.faults import fails_open, log, report
from erp_metrics.journal import ANSWERED, BATCH, count_batch, count_regularly, ended, note_end
from erp_metrics.metrics import UNMATCHED, Metrics
from erp_metrics.routes import RouteTable, routed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_FAILED, _GIVEN_UP = 500, 499


async def _send_too_late(_message: Message) -> None:
    # As servers do.
    raise RuntimeError("the application has returned: its response is over")


class HttpRequest:
    """One request or connection; measured until its last byte was sent, background tasks not included.

    Its `scope` is None once it has ended.
    """

    __slots__ = (
        "_path",
        "_root",
        "_route",
        "_started",
        "_status",
        "_table",
        "method",
        "queries",
        "scope",
        "send_on",
        "template",
    )

    def __init__(self, table: RouteTable, scope: Scope, send: Send) -> None:
        self._table = table
        # Routing changes a scope; the template is looked up when the request is counted.
        self.method: str = scope.get("method", "")
        self._path = scope["path"]
        self._root = scope.get("root_path", "")
        self.scope: Scope | None = scope
        self.template: str | None = None
        self.send_on = send
        self._status = 0
        self.queries = 0
        self._started = perf_counter()

    def find_template(self) -> str:
        """Return its route template, as far as can be told by now."""
        scope = self.scope
        route = self._route if scope is None else scope.get("route")
        # By its path only where it has to be: paths are many.
        self.template = self._table.of(route) or self._table.template(self.method, self._path, self._root)
        return self.template or routed(route)

    def send(self, message: Message) -> Awaitable[None]:
        """Send on what the application sends; the last part of the body ends the request."""
        try:
            kind = message["type"]
            if kind == "http.response.start":
                self._status = message["status"]
            elif (kind == "http.response.body" and not message.get("more_body")) or kind == "http.response.pathsend":
                return self._send_last(message)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
            report("HttpRequest.send", fault)
        return self.send_on(message)

    async def _send_last(self, message: Message) -> None:
        await self.send_on(message)
        scope = self.scope
        if scope is not None:
            # What runs on after it keeps its template, not its scope.
            self._route, self.scope = scope.get("route"), None
            # As `note_end` does, without calling it: the hot path.
            ended.append((ANSWERED, self, perf_counter() - self._started, self._status))
            if len(ended) >= BATCH:
                count_batch()

    @fails_open
    def over(self, kind: str, error: BaseException | None) -> None:
        """End what no response has completed: a failed or abandoned request, or a WebSocket's connection."""
        scope = self.scope
        if scope is not None:
            self._route, self.scope = scope.get("route"), None
            if kind == "http":
                gone = self._status if error is None else self._gone(error)
                note_end((ANSWERED, self, perf_counter() - self._started, _GIVEN_UP if gone else _FAILED))

    def _gone(self, error: BaseException) -> bool:
        """Tell whether an error says that the client or the server gave up."""
        if isinstance(error, BaseExceptionGroup):
            return all(map(self._gone, error.exceptions))
        if isinstance(error, OSError):
            # The server's `send` raises one; the application's own come from elsewhere, or are about a file to be sent.
            sends = HttpRequest._send_last.__code__, getattr(self.send_on, "__code__", None)
            return error.filename is None and any(frame.f_code in sends for frame, _ in walk_tb(error.__traceback__))
        # Whoever raises Starlette's has imported it, and Starlette makes it of any OSError while it streams a response.
        if isinstance(error, getattr(sys.modules.get("starlette.requests"), "ClientDisconnect", ())):
            return not isinstance(error.__context__, OSError) or self._gone(error.__context__)
        return isinstance(error, asyncio.CancelledError)


class Middleware:
    """Measures the application that it wraps; `outer` is the one whose routes are known."""

    def __init__(self, app: ASGIApp, metrics: Metrics, outer: Any = None) -> None:
        """Take the application to call, the metrics, and where to look for routes (default: the application)."""
        self.app = app
        self._metrics = metrics
        self._table = RouteTable(app if outer is None else outer)
        self._ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on unchanged, whatever happens to the measuring."""
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, self._after_startup(send))
            return
        if not self._ready:
            self._start()
        try:
            request = HttpRequest(self._table, scope, send)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
            report("HttpRequest", fault)
            await self.app(scope, receive, send)
            return
        outer = current.get()
        token = current.set(Block(outer.by, request) if isinstance(outer, Block) else request)
        try:
            await self.app(scope, receive, request.send if kind == "http" else send)
        except BaseException as error:
            if request.scope is not None:
                request.over(kind, error)
            raise
        else:
            if request.scope is not None:
                request.over(kind, None)
        finally:
            current.reset(token)
            # It waits to be counted, and the server's `send` holds the connection.
            request.send_on = _send_too_late

    def _after_startup(self, send: Send) -> Send:
        """Read the routes once the application has made them all."""

        async def sending(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._start()
            await send(message)

        return sending

    @fails_open
    def _start(self) -> None:
        self._ready = True
        self._table.build()
        for route in self._table.routes:
            self._metrics.start_endpoint(route.template, route.methods or ("GET",))
        self._metrics.start_endpoint(UNMATCHED, ())
        if self._metrics.shared:
            count_regularly()


def attach(app: Any, metrics: Metrics) -> Any:
    """Put the middleware round an application: Starlette's and FastAPI's in place, a plain ASGI callable wrapped."""
    if hasattr(app, "add_middleware") and hasattr(app, "user_middleware"):
        if any(getattr(one, "cls", None) is Middleware for one in app.user_middleware):
            return app
        if app.middleware_stack is None:
            app.add_middleware(Middleware, metrics=metrics, outer=app)
        else:
            # It runs already: Starlette takes no more middleware, its built stack does.
            app.middleware_stack = Middleware(app.middleware_stack, metrics, app)
        return app
    if _is_asgi(app):
        return app if isinstance(app, Middleware) else Middleware(app, metrics)
    if app is not None:
        log.warning("%r is no ASGI application: its queries are measured, its requests are not", app)
    return app


def _is_asgi(app: Any) -> bool:
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004
        return True
    # What would do with two arguments may be WSGI's.
    return _takes(app, 3) and not _takes(app, 2)


def _takes(app: Any, arguments: int) -> bool:
    try:
        inspect.signature(app).bind(*range(arguments))
    except (TypeError, ValueError):
        return False
    return True
