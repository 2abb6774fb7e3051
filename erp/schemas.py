"""What the server answers and accepts; amounts are exact, so JSON has them as strings."""

import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveMenge = Annotated[Decimal, Field(gt=0, max_digits=14, decimal_places=3)]


class Art(StrEnum):
    """Kinds of movement that can be posted."""

    WARENEINGANG = "Wareneingang"
    PRODUKTION = "Produktion"
    VERKAUF = "Verkauf"
    VERBRAUCH = "Verbrauch"
    AUSSCHUSS = "Ausschuss"

    @property
    def incoming(self) -> bool:
        """Whether stock grows by it."""
        return self in {Art.WARENEINGANG, Art.PRODUKTION}


class Kategorie(BaseModel):
    """A category with its numbers of articles and charges."""

    kategorie: str
    artikel: int
    chargen: int


class Lager(BaseModel):
    """A store."""

    id: int
    name: str
    ort: str
    klima: str


class Lieferant(BaseModel):
    """A supplier."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    ort: str
    land: str


class Artikel(BaseModel):
    """An article in a list."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    artikelnummer: str
    name: str
    kategorie: str
    einheit: str
    preis: Decimal


class ArtikelDetail(Artikel):
    """An article with all that is known of it."""

    mindestbestand: Decimal
    lieferant: Lieferant | None


class Bestand(BaseModel):
    """An article's stock in one store."""

    lager_id: int
    lager: str
    bestand: Decimal


class Charge(BaseModel):
    """A charge in a list."""

    id: int
    chargennummer: str
    produktionsdatum: datetime.date
    mhd: datetime.date
    status: str


class Station(BaseModel):
    """One movement on a charge's way."""

    id: int
    datum: datetime.datetime
    art: str
    menge: Decimal
    lager: str
    auftrag_id: int | None


class Verfolgung(Charge):
    """A charge's way from its receipt until now."""

    artikel_id: int
    artikel: str
    lieferant: str | None
    bewegungen: list[Station]


class Bewegung(BaseModel):
    """A movement."""

    id: int
    datum: datetime.datetime
    artikel_id: int
    charge_id: int
    lager_id: int
    auftrag_id: int | None
    art: str
    menge: Decimal


class Buchung(BaseModel):
    """A movement to be posted; `art` decides whether stock grows or shrinks."""

    model_config = ConfigDict(extra="forbid")

    charge_id: int = Field(ge=1, lt=2**31)
    lager_id: int = Field(ge=1, lt=2**31)
    art: Art
    menge: PositiveMenge


class Berichtszeile(BaseModel):
    """A line of the monthly report: one kind of movement of one category; `wert` at today's prices."""

    kategorie: str
    art: str
    bewegungen: int
    menge: Decimal
    wert: Decimal
