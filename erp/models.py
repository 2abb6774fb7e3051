"""The ERP's tables as SQLAlchemy models: the same as schema.sql, names of constraints included."""

import datetime
from decimal import Decimal
from typing import Annotated

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Identity, MetaData, Numeric, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# PostgreSQL's own way to name constraints.
_NAMES = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}

Key = Annotated[int, mapped_column(Identity(), primary_key=True)]
ArtikelKey = Annotated[int, mapped_column(ForeignKey("artikel.id"))]
LieferantKey = Annotated[int | None, mapped_column(ForeignKey("lieferant.id"))]
Menge = Annotated[Decimal, mapped_column(Numeric(14, 3))]


class Base(DeclarativeBase):
    """All tables of the ERP."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {str: Text()}  # noqa: RUF012 - SQLAlchemy's own convention


class Lieferant(Base):
    """A supplier."""

    __tablename__ = "lieferant"

    id: Mapped[Key]
    name: Mapped[str]
    ort: Mapped[str]
    land: Mapped[str]


class Lager(Base):
    """A store; its `klima` tells what may lie there."""

    __tablename__ = "lager"

    id: Mapped[Key]
    name: Mapped[str]
    ort: Mapped[str]
    klima: Mapped[str]


class Artikel(Base):
    """An article, bought (then it has a supplier) or made."""

    __tablename__ = "artikel"

    id: Mapped[Key]
    artikelnummer: Mapped[str]
    name: Mapped[str]
    kategorie: Mapped[str]
    einheit: Mapped[str]
    preis: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    mindestbestand: Mapped[Menge]
    lieferant_id: Mapped[LieferantKey]

    lieferant: Mapped[Lieferant | None] = relationship(lazy="raise")


class Charge(Base):
    """A batch of an article, with its day of production and its best-before date (`mhd`)."""

    __tablename__ = "charge"
    __table_args__ = (CheckConstraint("mhd > produktionsdatum", name="mhd"),)

    id: Mapped[Key]
    chargennummer: Mapped[str]
    artikel_id: Mapped[ArtikelKey]
    lieferant_id: Mapped[LieferantKey]
    produktionsdatum: Mapped[datetime.date]
    mhd: Mapped[datetime.date]
    status: Mapped[str]


class Auftrag(Base):
    """An order: purchase, production or sale."""

    __tablename__ = "auftrag"

    id: Mapped[Key]
    auftragsnummer: Mapped[str]
    art: Mapped[str]
    artikel_id: Mapped[ArtikelKey]
    lieferant_id: Mapped[LieferantKey]
    menge: Mapped[Menge]
    bestelldatum: Mapped[datetime.date]
    liefertermin: Mapped[datetime.date]
    status: Mapped[str]


class Lagerbewegung(Base):
    """A movement of stock; what comes in is positive, what goes out negative."""

    __tablename__ = "lagerbewegung"
    __table_args__ = (CheckConstraint("menge <> 0", name="menge"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    artikel_id: Mapped[ArtikelKey]
    charge_id: Mapped[int] = mapped_column(ForeignKey("charge.id"))
    lager_id: Mapped[int] = mapped_column(ForeignKey("lager.id"))
    auftrag_id: Mapped[int | None] = mapped_column(ForeignKey("auftrag.id"))
    datum: Mapped[datetime.datetime] = mapped_column(DateTime(timezone=True))
    art: Mapped[str]
    menge: Mapped[Menge]


TABLES = [table.name for table in Base.metadata.sorted_tables]
