"""One collector's run: its needs checked, its queries run in one transaction, its rows turned into metric families."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import psycopg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family

from pgstat_exporter.config import Enabled
from pgstat_exporter.content import Metric, Query
from pgstat_exporter.session import Connection, Facts, Limits, Row, Session, facts, limit_statement, one_line
from pgstat_exporter.texts import TextCache

_NO_FACTS = Facts(has_role=True, schema=None, columns=frozenset())


class Skip(Exception):  # noqa: N818 - not an error: the server cannot offer this
    """Why a collector has nothing to run on this server: a reason as a label value, and advice."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(advice)
        self.reason = reason


class BadContent(Exception):  # noqa: N818 - it is shown to people as it is
    """What is wrong with the rows of a collector's SQL."""


@dataclass(frozen=True)
class Outcome:
    """How a collector's run ended; exactly one of ok, skipped and failed."""

    seconds: float
    families: tuple[Family, ...] = ()
    truncated: bool = False
    skipped: str | None = None
    failed: bool = False
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the collector delivered its metrics."""
        return not self.failed and self.skipped is None

    @property
    def series(self) -> int:
        """Number of samples delivered."""
        return sum(len(family.samples) for family in self.families)


class Budget:
    """The time that a collector has left for all its statements together."""

    def __init__(self, enabled: Enabled, deadline: float) -> None:
        self._end = min(time.monotonic() + enabled.statement_timeout, deadline)
        self._lock = enabled.lock_timeout

    def limits(self) -> Limits:
        """Return what the next statement may take, or raise TimeoutError when nothing is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("its time, or the scrape's, was over")
        return Limits(left, self._lock)


def run(session: Session, enabled: Enabled, texts: TextCache | None, deadline: float) -> Outcome:
    """Run a collector within its limits and before the deadline (monotonic clock); its faults end in the outcome."""
    started = time.monotonic()
    budget = Budget(enabled, deadline)
    try:
        known = _needs(session, enabled, budget)
        families, truncated = _queries(session, enabled, budget, known)
        if texts:
            families.append(texts.family(session, known.schema, families, budget.limits()))
        return Outcome(time.monotonic() - started, tuple(families), truncated)
    except Skip as skip:
        return Outcome(time.monotonic() - started, skipped=skip.reason, detail=str(skip))
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        # The extension was created, and its library is not loaded.
        return Outcome(time.monotonic() - started, skipped="preload", detail=one_line(error))
    except Exception as error:  # noqa: BLE001 - whatever befalls one collector must not harm the others
        return Outcome(time.monotonic() - started, failed=True, detail=f"{one_line(error)}{_hint(error)}")


def _hint(error: Exception) -> str:
    if isinstance(error, psycopg.errors.QueryCanceled):
        return " (statement_timeout of the collector, or the scrape's time)"
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return " (somebody holds a lock on the catalog)"
    return ""


def _needs(session: Session, enabled: Enabled, budget: Budget) -> Facts:
    declaration = enabled.collector.declaration
    if not declaration.role and not declaration.extension:
        return _NO_FACTS
    with session.transaction(budget.limits()) as connection:
        known = facts(connection, declaration.role, declaration.extension)
    if declaration.extension and known.schema is None:
        name = declaration.extension
        raise Skip("extension", f"{name} is not installed in this database: run CREATE EXTENSION {name}")
    if not known.has_role:
        raise Skip("privilege", f"the role is no member of {declaration.role}: run GRANT {declaration.role} TO it")
    return known


def _queries(session: Session, enabled: Enabled, budget: Budget, known: Facts) -> tuple[list[Family], bool]:
    families: list[Family] = []
    truncated = False
    with session.transaction(budget.limits(), known.schema) as connection:
        for query in enabled.collector.declaration.queries:
            variant = query.choose(session.server(), known.columns)
            if variant is None:
                if not query.optional:
                    raise Skip("version", query.otherwise)
                continue
            limit_statement(connection, budget.limits().statement)
            rows = _rows(connection, enabled.collector.sql[variant.file], enabled.row_limit, query, variant.file)
            truncated |= len(rows) > enabled.row_limit
            families.extend(to_families(query, rows[: enabled.row_limit]))
    return families, truncated


def _rows(connection: Connection, sql: str, limit: int, query: Query, file: str) -> list[Row]:
    # One row more than is exported tells that there were more. The subquery's order survives a bare LIMIT.
    cursor = connection.execute(f"SELECT * FROM (\n{sql}\n) AS collector LIMIT {limit + 1}".encode())  # noqa: S608
    missing = query.columns().difference(column.name for column in cursor.description or ())
    if missing:
        raise BadContent(f"{file} returns no column {', '.join(sorted(missing))}")
    return cursor.fetchall()


def to_families(query: Query, rows: Sequence[Row]) -> Iterable[Family]:
    """Yield a query's metric families; a NULL value is no sample, two samples of one series are an error."""
    for metric in query.metrics:
        labels = query.labels if metric.labels is None else metric.labels
        family = empty(metric, labels)
        seen: set[tuple[str, ...]] = set()
        for row in rows:
            value = 1.0 if metric.column is None else _number(metric, row[metric.column])
            if value is None:
                continue
            values = tuple("" if row[label] is None else str(row[label]) for label in labels)
            if values in seen:
                raise BadContent(f"{metric.name} has two rows for {dict(zip(labels, values, strict=True))}")
            seen.add(values)
            family.add_sample(metric.name, dict(zip(labels, values, strict=True)), value)
        yield family


def empty(metric: Metric, labels: Sequence[str]) -> Family:
    """Return a metric's family without samples."""
    if metric.type == "counter":
        return CounterMetricFamily(metric.name, metric.help, labels=labels)
    if metric.type == "info":
        return InfoMetricFamily(metric.name.removesuffix("_info"), metric.help, labels=labels)
    return GaugeMetricFamily(metric.name, metric.help, labels=labels)


def _number(metric: Metric, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool | int | float | Decimal):
        return float(value)
    raise BadContent(f"{metric.name}: column {metric.column} holds {type(value).__name__}, not a number")
