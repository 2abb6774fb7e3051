"""What a query is sent in: a request, a block that names it, or both."""

from contextvars import ContextVar, Token
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
    """A block that names its queries, and the request that it is part of."""

    name: str
    request: Request | None


Context = Request | Block | None

# One variable for both: each one that a query has to read costs it a tenth of all that measuring costs.
current: ContextVar[Context] = ContextVar("erp_metrics", default=None)


class query:  # noqa: N801 - reads as a verb: `with erp_metrics.query("artikel_suche"):`
    """Name the queries of a block, in threads and tasks alike; usable with `with` and with `async with`."""

    __slots__ = ("_name", "_token")

    def __init__(self, name: str) -> None:
        """Take the name; where an allow-list is set, one that is not on it counts as `other`."""
        self._name = name
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        context = current.get()
        self._token = current.set(Block(self._name, context.request if isinstance(context, Block) else context))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            current.reset(self._token)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def block_of(context: Context) -> str | None:
    """Return the name that a block gives to its queries."""
    return context.name if isinstance(context, Block) else None
