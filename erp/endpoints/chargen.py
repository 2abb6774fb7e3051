"""Charges: where each came from and where it went."""

from fastapi import APIRouter, HTTPException

from erp.database import Row
from erp.endpoints import DatabaseOf, Key
from erp.schemas import Verfolgung

router = APIRouter(tags=["Chargen"])


@router.get("/chargen/{charge_id}/verfolgung", response_model=Verfolgung)
async def verfolgung(database: DatabaseOf, charge_id: Key) -> Row:
    """Trace a charge through its movements, in the order of time."""
    charge = await database.row("charge_kopf", charge_id=charge_id)
    if charge is None:
        raise HTTPException(404, f"no charge {charge_id}")
    return charge | {"bewegungen": await database.rows("charge_bewegungen", charge_id=charge_id)}
