"""Articles: search, detail, stock, charges."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from sqlalchemy import select
from sqlalchemy.orm import joinedload

import erp_metrics
from erp import models
from erp.database import Row
from erp.endpoints import DatabaseOf, Key, Limit
from erp.queries import ARTIKEL_DETAIL
from erp.schemas import Artikel, ArtikelDetail, Bestand, Charge, Kategorie, Lager

router = APIRouter(tags=["Artikel"])


@router.get("/kategorien", response_model=list[Kategorie])
async def kategorien(database: DatabaseOf) -> list[Row]:
    """List the categories."""
    return await database.rows("kategorien")


@router.get("/lager", response_model=list[Lager])
async def lager(database: DatabaseOf) -> list[Row]:
    """List the stores."""
    return await database.rows("lager")


@router.get("/artikel", response_model=list[Artikel])
async def suche(
    database: DatabaseOf,
    kategorie: str,
    suche: Annotated[str, Query(max_length=100)] = "",
    limit: Limit = 50,
) -> list[Row]:
    """Find articles of a category whose name contains a text, in the order of names."""
    escaped = suche.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return await database.rows("artikel_suche", kategorie=kategorie, muster=f"%{escaped}%", limit=limit)


@router.get("/artikel/{artikel_id}", response_model=ArtikelDetail)
async def detail(database: DatabaseOf, artikel_id: Key) -> models.Artikel:
    """Return an article with its supplier."""
    query = select(models.Artikel).options(joinedload(models.Artikel.lieferant)).where(models.Artikel.id == artikel_id)
    async with database.session() as session:
        # What a new connection asks the server is not this query.
        await session.connection()
        with erp_metrics.query(ARTIKEL_DETAIL):
            found = await session.scalar(query)
    if found is None:
        raise HTTPException(404, f"no article {artikel_id}")
    return found


@router.get("/artikel/{artikel_id}/bestand", response_model=list[Bestand])
async def bestand(database: DatabaseOf, artikel_id: Key) -> list[Row]:
    """Return an article's stock in each store: the sum over all its movements."""
    return await database.rows("artikel_bestand", artikel_id=artikel_id)


@router.get("/artikel/{artikel_id}/chargen", response_model=list[Charge])
async def chargen(database: DatabaseOf, artikel_id: Key, limit: Limit = 20) -> list[Row]:
    """Return an article's youngest charges."""
    return await database.rows("artikel_chargen", artikel_id=artikel_id, limit=limit)
