"""Which route template a request belongs to, found before the application routes it."""

import re
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from erp_metrics.metrics import UNMATCHED

_PARAMETER = re.compile(r"{([a-zA-Z_]\w*)(?::([a-zA-Z_]\w*))?}")
_CONVERTORS = {
    "str": "[^/]+",
    "path": ".*",
    "int": "[0-9]+",
    "float": r"[0-9]+(?:\.[0-9]+)?",
    "uuid": "[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
}
_CACHED = 1000
# An application inside of more middleware than that is not looked for; nor is one that is inside of itself.
_MOST_LAYERS = 100
# Routes may be added while the application runs; looking for them at every unknown path would cost too much.
_REBUILD_SECONDS = 10


class Route(NamedTuple):
    """A template, which paths and methods it answers (no methods: any)."""

    template: str
    pattern: re.Pattern[str]
    methods: frozenset[str]
    is_rest: bool = False
    """It stands for what else a mounted application answers: no later route is asked."""


class RouteTable:
    """The routes of a Starlette or FastAPI application, mounted ones and included ones with their whole path."""

    def __init__(self, app: Any) -> None:
        """Take the application, or middleware round it; one without `routes` has no templates."""
        self._app = app
        self._built = 0.0
        self._cache: dict[tuple[str, str], str | None] = {}
        self._beginnings: dict[str, list[Route]] = {}
        self._own: dict[int, tuple[Any, str]] = {}
        self.routes: list[Route] = []

    def build(self) -> None:
        """Read the routes anew."""
        routes = _routes(self._app)
        found = list(_walk(routes, "", ""))
        self.routes = [route for route in found if not route.is_rest]
        self._beginnings = _by_beginning(found)
        self._own = {id(route): (route, template) for route, template in _own(routes)}
        self._cache.clear()
        self._built = time.monotonic()

    def of(self, route: Any) -> str | None:
        """Return the template of one of the application's own routes, which routing puts into a scope, else None."""
        found = self._own.get(id(route))
        return None if found is None else found[1]

    def template(self, method: str, path: str, root: str) -> str | None:
        """Return the template of a request by what its scope said before it was routed."""
        if root and path.startswith(root):
            path = path[len(root) :] or "/"
        key = method, path
        if key not in self._cache:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[key] = self._find(*key)
        return self._cache[key]

    def _find(self, method: str, path: str) -> str | None:
        found = self._match(method, path)
        if found is None and time.monotonic() - self._built > _REBUILD_SECONDS:
            self.build()
            found = self._match(method, path)
        return found

    def _match(self, method: str, path: str) -> str | None:
        """Return the first route that answers; failing that, the first whose path fits (405)."""
        first = None
        for route in self._beginnings.get(_beginning(path), self._beginnings.get("", ())):
            if route.pattern.fullmatch(path):
                if route.is_rest:
                    break
                if not route.methods or method in route.methods:
                    return route.template
                first = first or route
        return first.template if first else None


def _beginning(path: str) -> str:
    """Return a path's first segment, which tells most routes apart."""
    return path.split("/", 2)[1] if path.startswith("/") else ""


def _by_beginning(routes: list[Route]) -> dict[str, list[Route]]:
    """Return the routes that may fit a path by its first segment, in their order; under "" those that fit others, too.

    Trying every route would cost a large application more than all the rest.
    """
    fixed = ["" if "{" in _beginning(route.template) else _beginning(route.template) for route in routes]
    return {
        beginning: [route for route, own in zip(routes, fixed, strict=True) if own in ("", beginning)]
        for beginning in {"", *fixed}
    }


def routed(route: Any) -> str:
    """Return what the framework's own route says where our table knows nothing: routes are few, whatever they are."""
    path = getattr(route, "path", None)
    return _plain(path) if isinstance(path, str) and path and hasattr(route, "endpoint") else UNMATCHED


@lru_cache(_CACHED)
def _plain(path: str) -> str:
    """Return a route's path without convertors."""
    return _PARAMETER.sub(r"{\1}", path)


def _routes(app: Any) -> list[Any]:
    """Return an application's routes; it may be inside of middleware."""
    for _ in range(_MOST_LAYERS):
        if hasattr(app, "routes") or not hasattr(app, "app"):
            break
        app = app.app
    return list(getattr(app, "routes", None) or ())


def _walk(routes: Iterable[Any], prefix: str, pattern: str) -> Iterator[Route]:
    for outer in routes:
        for route in _included(outer):
            path = getattr(route, "path", "")
            inner = _mounted(route)
            if inner is None:
                if path:
                    yield _route(prefix + path, pattern + path, getattr(route, "methods", None))
                continue
            yield from _walk(inner, prefix + path, pattern + path)
            rest = _route(f"{prefix}{path}/{{path}}", f"{pattern}{path}/{{path:path}}", None)
            if not inner:
                yield rest
            elif hasattr(route, "path"):
                # A host's application is one of several for the same paths.
                yield rest._replace(is_rest=True)


def _own(routes: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """Yield the routes that stand for one path only, neither mounted nor included from elsewhere."""
    for route in routes:
        path = getattr(route, "path", None)
        if path and hasattr(route, "endpoint") and not callable(getattr(route, "effective_route_contexts", None)):
            yield route, _plain(path)


def _included(route: Any) -> Iterable[Any]:
    """Return the routes of an included router with their whole path; FastAPI keeps it as one object of `routes`."""
    contexts = getattr(route, "effective_route_contexts", None)
    if not callable(contexts):
        return (route,)
    return [getattr(context, "starlette_route", None) or context for context in contexts()]


def _mounted(route: Any) -> list[Any] | None:
    """Return the routes of a mounted application (none known: an empty list), None for an ordinary route."""
    if hasattr(route, "endpoint") or not hasattr(route, "app"):
        return None
    return _routes(route.app)


def _route(template: str, pattern: str, methods: Iterable[str] | None) -> Route:
    parts, end = [], 0
    for match in _PARAMETER.finditer(pattern):
        parts += [re.escape(pattern[end : match.start()]), f"(?:{_convertor(match[2])})"]
        end = match.end()
    parts.append(re.escape(pattern[end:]))
    return Route(_plain(template), re.compile("".join(parts)), frozenset(methods or ()))


def _convertor(name: str | None) -> str:
    if name in _CONVERTORS or name is None:
        return _CONVERTORS[name or "str"]
    from starlette.convertors import CONVERTOR_TYPES  # noqa: PLC0415 - an application's own convertor

    return CONVERTOR_TYPES[name].regex
