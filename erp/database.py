"""The server's connections: psycopg's asyncio pool, and an SQLAlchemy engine beside it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from erp.config import Config
from erp.queries import QUERIES

Row = dict[str, Any]

# Longer than any query should take, shorter than people wait: what waits for a lock is served once the lock is gone.
# And a statement does not outlive the one who asked, however we end.
_OPTIONS = "-c statement_timeout=30s -c client_connection_check_interval=1s"
_WAIT_SECONDS = 30
_HEALTH_SECONDS = 2
_CLOSE_SECONDS = 1


class Transaction:
    """One connection, for as long as its block."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Take the connection."""
        self._connection = connection

    async def rows(self, name: str, **parameters: object) -> list[Row]:
        """Run a query of queries.py and return its rows."""
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(QUERIES[name], parameters)
            return await cursor.fetchall()

    async def row(self, name: str, **parameters: object) -> Row | None:
        """Run a query and return its first row, None if there is none."""
        return next(iter(await self.rows(name, **parameters)), None)


class Database:
    """Where the endpoints get their rows."""

    def __init__(self, config: Config) -> None:
        """Connect to nothing yet."""
        self._config = config
        self._pool = AsyncConnectionPool(
            config.database,
            kwargs=lambda: {"autocommit": True, **self._arguments()},
            min_size=1,
            max_size=config.pool_size,
            open=False,
            timeout=_WAIT_SECONDS,
            # A connection that the server has closed meanwhile is replaced instead of handed out.
            check=AsyncConnectionPool.check_connection,
            name="erp",
        )
        self._engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._connect,
            pool_size=max(1, config.pool_size // 4),
            max_overflow=0,
            pool_pre_ping=True,
            pool_timeout=_WAIT_SECONDS,
        )

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open the pool, without waiting for the server, and close everything at the end."""
        await self._pool.open()
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * _CLOSE_SECONDS):
                    await self._pool.close(_CLOSE_SECONDS)
                    await self._engine.dispose()

    async def rows(self, name: str, **parameters: object) -> list[Row]:
        """Run one query of queries.py and return its rows."""
        async with self._pool.connection() as connection:
            return await Transaction(connection).rows(name, **parameters)

    async def row(self, name: str, **parameters: object) -> Row | None:
        """Run one query and return its first row, None if there is none."""
        return next(iter(await self.rows(name, **parameters)), None)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Run several queries as one; an error takes all of them back."""
        async with self._pool.connection() as connection, connection.transaction():
            yield Transaction(connection)

    def session(self) -> AsyncSession:
        """Return an SQLAlchemy session."""
        return AsyncSession(self._engine)

    async def answers(self) -> bool:
        """Tell whether the database answers soon. Raises TimeoutError or psycopg.OperationalError otherwise."""
        async with asyncio.timeout(_HEALTH_SECONDS), self._pool.connection(_HEALTH_SECONDS) as connection:
            return await Transaction(connection).row("healthz") == {"ok": 1}

    async def _connect(self) -> AsyncConnection:
        return await AsyncConnection.connect(self._config.database, **cast("Mapping[str, Any]", self._arguments()))

    def _arguments(self) -> dict[str, Any]:
        return {
            "password": self._config.password(),
            "application_name": "erp",
            "options": _OPTIONS,
            "connect_timeout": 10,
        }
