"""What a query is sent in: a request, a block that names it, or both."""

from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple, Protocol


class Request(Protocol):
    """A request that is being answered, or was."""

    method: str
    queries: int
    """How many queries it has sent."""
    template: str | None
    """Its route template, once that is certain."""

    def find_template(self) -> str:
        """Return its route template, as far as can be told by now."""


class Block(NamedTuple):
    """A block that names its queries, the request that it is part of, and what it is in."""

    by: "query"
    request: Request | None
    outer: "Context" = None


Context = Request | Block | None

# One variable for all: reading a second one would cost a query much of what measuring it costs.
current: ContextVar[Context] = ContextVar("erp_metrics", default=None)


class query:  # noqa: N801 - reads as a verb: `with erp_metrics.query("artikel_suche"):`
    """Name the queries of a block, in threads and tasks alike; usable with `with` and with `async with`, and again."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        """Take the name; where an allow-list is set, one that is not on it counts as `other`."""
        self.name = name

    def __enter__(self) -> None:
        outer = current.get()
        current.set(Block(self, request_of(outer), outer))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # No token: a generator may be left in another context than it was entered in, after its request, or after what
        # was round it.
        context, inner = current.get(), []
        while isinstance(context, Block) and context.by is not self:
            inner.append(context)
            context = context.outer
        if isinstance(context, Block):
            context = context.outer
            for block in reversed(inner):
                context = block._replace(outer=context)
            current.set(context)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def block_of(context: Context) -> str | None:
    """Return the name that a block gives to its queries."""
    return context.by.name if isinstance(context, Block) else None


def request_of(context: Context) -> Request | None:
    """Return the request that a query is part of."""
    return context.request if isinstance(context, Block) else context
