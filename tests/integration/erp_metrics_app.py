"""An application with one endpoint per way to use a database, for tests under a real server."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import psycopg
import psycopg_pool
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from psycopg.rows import TupleRow

import erp_metrics

_GET = "/* name: lesen */ SELECT id FROM lager WHERE id = %s"
_PUT = "/* name: schreiben */ INSERT INTO lager VALUES (%s)"

pool = psycopg_pool.AsyncConnectionPool(os.environ["ERP_DATABASE"], min_size=1, max_size=4, open=False, name="erp")


@contextlib.asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with pool:
        yield


app = FastAPI(lifespan=_lifespan)
erp_metrics.instrument(app, metrics_port=int(os.environ["ERP_METRICS_PORT"]))


@app.get("/lesen/{anzahl}")
async def read(anzahl: int) -> int:
    """Read as many rows one by one."""
    async with pool.connection() as connection:
        for number in range(anzahl):
            await connection.execute(_GET, (number,))
    return os.getpid()


@app.get("/faden")
def thread() -> int:
    """Read a row in a thread."""
    with psycopg.connect(os.environ["ERP_DATABASE"]) as connection:
        return len(connection.execute(_GET, (1,)).fetchall())


@app.post("/schreiben/{nummer}")
async def write(nummer: int) -> str:
    """Write a row and then one that is there already: both are rolled back, and the error is the client's."""
    async with pool.connection() as connection:
        await connection.execute(_PUT, (nummer,))
        await connection.execute(_PUT, (1,))
    return "written"


@app.post("/kopieren/{anzahl}")
async def copy(anzahl: int) -> int:
    """Write as many rows at once."""
    async with pool.connection() as connection, connection.cursor() as cursor:
        async with cursor.copy("/* name: kopieren */ COPY ladung FROM STDIN") as rows:
            for number in range(anzahl):
                await rows.write_row((number,))
        return cursor.rowcount


@app.post("/leitung/{anzahl}")
async def pipeline(anzahl: int) -> str:
    """Write as many rows in a pipeline, read two, and fail."""
    async with pool.connection() as connection:
        async with connection.pipeline():
            for number in range(anzahl):
                await connection.execute("/* name: leitung */ INSERT INTO ladung VALUES (%s)", (number,))
            await connection.execute("/* name: zwei */ SELECT id FROM lager WHERE id < 3")
        await connection.commit()
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            async with connection.pipeline():
                await connection.execute("/* name: fehlt */ SELECT 1 FROM weg")
                await connection.execute("/* name: danach */ SELECT 1")
        await connection.rollback()
    return "ok"


@app.get("/strom/{anzahl}")
async def stream(anzahl: int) -> StreamingResponse:
    """Stream rows of a server-side cursor, as many as wanted."""

    async def rows() -> AsyncIterator[str]:
        async with pool.connection() as connection, connection.cursor("strom") as cursor:
            cursor.itersize = 10
            await cursor.execute("/* name: strom */ SELECT generate_series(1, %s)", (anzahl,))
            async for row in cursor:
                yield f"{row[0]}\n"

    return StreamingResponse(rows())


@app.get("/endlos")
async def endless() -> StreamingResponse:
    """Stream until the client goes away."""

    async def rows() -> AsyncIterator[str]:
        async with pool.connection() as connection:
            while True:
                await connection.execute("/* name: endlos */ SELECT 1")
                yield "."
                await asyncio.sleep(0.01)

    return StreamingResponse(rows())


@app.post("/hochladen")
async def upload(request: Request) -> int:
    """Take what the client sends, if it comes to the end of it."""
    return len(await request.body())


@app.get("/abgebrochen")
async def cancelled() -> str:
    """Give a query up."""
    async with pool.connection() as connection:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(connection.execute("/* name: abgebrochen */ SELECT pg_sleep(60)"), 0.2)
    return "given up"


@app.get("/kaputt")
async def broken() -> TupleRow:
    """Fail after a query."""
    async with pool.connection() as connection:
        await connection.execute(_GET, (1,))
    raise RuntimeError("on purpose")


@app.get("/halten")
async def hold() -> str:
    """Hold a connection of the pool for as long as there is a row in a table."""
    async with pool.connection() as connection:
        await connection.execute("/* name: halten */ SELECT pg_advisory_xact_lock_shared(1)")
    return "held"


@app.websocket("/ws/{raum}")
async def talk(socket: WebSocket, raum: str) -> None:
    """Answer each message after a query, until the client goes away."""
    await socket.accept()
    async for text in socket.iter_text():
        async with pool.connection() as connection:
            await connection.execute(_GET, (len(text),))
        await socket.send_text(raum)
