"""Movements of stock: those of a period, and posting one."""

import datetime

from fastapi import APIRouter, HTTPException
from psycopg.errors import ForeignKeyViolation

from erp.database import Row, Transaction
from erp.endpoints import DatabaseOf, Limit
from erp.schemas import Bewegung, Buchung

router = APIRouter(tags=["Bewegungen"])


@router.get("/bewegungen", response_model=list[Bewegung])
async def zeitraum(
    database: DatabaseOf, von: datetime.datetime, bis: datetime.datetime, limit: Limit = 100
) -> list[Row]:
    """Return the youngest movements from `von` until before `bis`."""
    return await database.rows("bewegungen_zeitraum", von=von, bis=bis, limit=limit)


@router.post("/bewegungen", response_model=Bewegung, status_code=201)
async def buchen(database: DatabaseOf, buchung: Buchung) -> Row:
    """Post a movement; no more goes out of a store than is there of the charge."""
    try:
        async with database.transaction() as transaction:
            return await _post(transaction, buchung)
    except ForeignKeyViolation as error:
        raise HTTPException(404, f"no store {buchung.lager_id}") from error


async def _post(transaction: Transaction, buchung: Buchung) -> Row:
    # The charge's row is locked, so that two sales cannot both take the last of it.
    charge = await transaction.row("charge_sperren", charge_id=buchung.charge_id)
    if charge is None:
        raise HTTPException(404, f"no charge {buchung.charge_id}")
    if charge["status"] == "gesperrt":
        raise HTTPException(409, f"charge {buchung.charge_id} is blocked")
    menge = buchung.menge if buchung.art.incoming else -buchung.menge
    place = {"charge_id": buchung.charge_id, "lager_id": buchung.lager_id}
    if menge < 0:
        stock = await transaction.row("charge_bestand", **place)
        if stock is None or stock["bestand"] + menge < 0:
            raise HTTPException(409, f"the store holds less than {buchung.menge} of charge {buchung.charge_id}")
    posted = await transaction.row(
        "bewegung_buchen", artikel_id=charge["artikel_id"], art=buchung.art.value, menge=menge, **place
    )
    return posted or {}
