"""ASGI middleware: requests by route template, and which request a query belongs to."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

from erp_metrics import measure
from erp_metrics.faults import fails_open, log
from erp_metrics.metrics import UNMATCHED, Metrics
from erp_metrics.routes import RouteTable, routed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_FAILED, _CANCELLED = 500, 499


class HttpRequest:
    """One request or connection; measured until its last byte was sent, background tasks not included."""

    __slots__ = ("_metrics", "_scope", "_started", "_template", "status")

    def __init__(self, metrics: Metrics, template: str | None, scope: Scope) -> None:
        self._metrics = metrics
        self._scope: Scope | None = scope
        self._started = perf_counter()
        self._template = template
        self.status: int | None = None

    @property
    def template(self) -> str:
        """Its route template."""
        if self._template is not None:
            return self._template
        return UNMATCHED if self._scope is None else routed(self._scope)

    @fails_open
    def sent(self, message: Message) -> None:
        """Note what was sent; the last part of the body ends the request."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            self._end()

    @fails_open
    def over(self, error: BaseException | None) -> None:
        """End a request that has not sent everything."""
        if error is not None and self.status is None:
            self.status = _CANCELLED if isinstance(error, asyncio.CancelledError) else _FAILED
        self._end()

    def _end(self) -> None:
        """Count the request, once; what runs on after it keeps its template, not its scope."""
        scope = self._scope
        if scope is not None:
            template = self._template = self.template
            self._scope = None
            if scope["type"] == "http":
                seconds = perf_counter() - self._started
                status = self.status or _CANCELLED
                self._metrics.request(template, scope["method"], status, seconds)


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
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._after_startup(send))
            return
        request = self._open(scope)
        if request is None:
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            await send(message)
            request.sent(message)

        token = measure.current_request.set(request)
        try:
            await self.app(scope, receive, sending)
        except BaseException as error:
            request.over(error)
            raise
        else:
            request.over(None)
        finally:
            measure.current_request.reset(token)

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

    @fails_open
    def _open(self, scope: Scope) -> HttpRequest | None:
        if not self._ready:
            self._start()
        return HttpRequest(self._metrics, self._table.template(scope), scope)


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
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004
        return app if isinstance(app, Middleware) else Middleware(app, metrics)
    if app is not None:
        log.warning("%r is no ASGI application: its queries are measured, its requests are not", app)
    return app
