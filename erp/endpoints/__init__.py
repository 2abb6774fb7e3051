"""The server's modules, each a router; a request's database is the application's."""

from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request

from erp.database import Database


def _database(request: Request) -> Database:
    return cast(Database, request.app.state.database)


DatabaseOf = Annotated[Database, Depends(_database)]
Key = Annotated[int, Path(ge=1, lt=2**31)]
Limit = Annotated[int, Query(ge=1, le=500)]
