"""Tasks of the queue `reports`."""

import datetime
import re
from collections import defaultdict
from decimal import Decimal
from typing import Any

import psycopg

from erp_tasks import database
from erp_tasks.app import app, settings
from erp_tasks.task import RETRY_SECONDS, JobTask, Progress

CHUNK = 50_000
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")

# Along the primary key: the only index that the plan's schema is sure to have, and a known whole to be done.
_RANGE = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM lagerbewegung"
_CHUNK = """
    SELECT artikel_id, count(*),
           coalesce(sum(menge) FILTER (WHERE menge > 0), 0),
           coalesce(-sum(menge) FILTER (WHERE menge < 0), 0)
    FROM lagerbewegung
    WHERE id BETWEEN %(first)s AND %(last)s AND datum >= %(begin)s::date AND datum < %(end)s::date
    GROUP BY artikel_id
"""
_CATEGORIES = "SELECT id, kategorie FROM artikel"


class _Sum:
    """Movements of one category."""

    def __init__(self) -> None:
        self.articles: set[int] = set()
        self.movements = 0
        self.received = Decimal(0)
        self.issued = Decimal(0)


def month_bounds(monat: str) -> tuple[datetime.date, datetime.date]:
    """Return the first day of a month such as `2026-10` and of the month after it. Raises ValueError."""
    match = _MONTH.fullmatch(monat)
    if not match or match[1] == "0000":
        raise ValueError(f"monat must be like 2026-10, not {monat!r}")
    begin = datetime.date(int(match[1]), int(match[2]), 1)
    return begin, (begin + datetime.timedelta(days=31)).replace(day=1)


@app.task(  # type: ignore[untyped-decorator]
    name="backend.tasks.reports.monatsbericht",
    base=JobTask,
    autoretry_for=(psycopg.OperationalError,),
    retry_backoff=2,
    retry_backoff_max=RETRY_SECONDS,
    retry_kwargs={"max_retries": 3},
)
def monatsbericht(monat: str, *, progress: Progress) -> list[dict[str, Any]]:
    """Return a month's movements by article category: articles, movements, received, issued, balance."""
    begin, end = month_bounds(monat)
    with database.snapshot(settings) as connection:
        return monthly_report(connection, begin, end, progress=progress)


def monthly_report(
    connection: psycopg.Connection,
    begin: datetime.date,
    end: datetime.date,
    *,
    progress: Progress,
    chunk: int = CHUNK,
) -> list[dict[str, Any]]:
    """Sum up the movements from `begin` until before `end`, reporting movements read; amounts are exact texts."""
    categories: dict[int, str] = dict(connection.execute(_CATEGORIES).fetchall())
    lowest, highest = connection.execute(_RANGE).fetchone() or (1, 0)
    sums: dict[str, _Sum] = defaultdict(_Sum)
    total = highest - lowest + 1
    progress(0, total)
    for first in range(lowest, highest + 1, chunk):
        last = min(first + chunk - 1, highest)
        rows = connection.execute(_CHUNK, {"first": first, "last": last, "begin": begin, "end": end})
        for article, movements, received, issued in rows:
            of = sums[categories[article]]
            of.articles.add(article)
            of.movements += movements
            of.received += received
            of.issued += issued
        progress(last - lowest + 1, total)
    return [_row(category, sums[category]) for category in sorted(sums)]


def _row(category: str, of: _Sum) -> dict[str, Any]:
    return {
        "kategorie": category,
        "artikel": len(of.articles),
        "bewegungen": of.movements,
        "zugang": f"{of.received:f}",
        "abgang": f"{of.issued:f}",
        "saldo": f"{of.received - of.issued:f}",
    }
