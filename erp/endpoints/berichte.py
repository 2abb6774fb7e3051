"""Reports that are computed while one waits; slow ones belong to the task queue."""

import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path

from erp.database import Row
from erp.endpoints import DatabaseOf
from erp.schemas import Berichtszeile

router = APIRouter(tags=["Berichte"])


@router.get("/berichte/monat/{monat}", response_model=list[Berichtszeile])
async def monatsbericht(
    database: DatabaseOf, monat: Annotated[str, Path(pattern=r"^\d{4}-\d{2}$", description="such as 2026-10")]
) -> list[Row]:
    """Sum up a month's movements by category and kind."""
    try:
        begin = datetime.date.fromisoformat(f"{monat}-01")
    except ValueError as error:
        raise HTTPException(422, f"no month {monat}") from error
    end = (begin + datetime.timedelta(days=31)).replace(day=1)
    return await database.rows("monatsbericht", von=begin, bis=end)
