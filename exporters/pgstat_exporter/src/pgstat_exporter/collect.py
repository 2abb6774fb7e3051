"""One collector's run: its needs checked, its queries run in one transaction, its rows turned into sample lines."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psycopg

from pgstat_exporter.config import Enabled
from pgstat_exporter.content import Metric, Query, Variant
from pgstat_exporter.exposition import BadContent, Row, Samples, label_text, label_texts, sample_lines
from pgstat_exporter.facts import Facts, facts
from pgstat_exporter.grants import quoted
from pgstat_exporter.session import (
    BadStatement,
    Limits,
    LostPrepared,
    Session,
    one_line,
)
from pgstat_exporter.texts import TextCache

NO_DATABASE = ""
_KEPT = "pgstat_exporter.kept"
# Up to so many rows, fetching costs psycopg without its C part no more than COPY saves.
_FEW = 100
_BETWEEN, _BEHIND = "\x1f", "\x1e"


class Skip(Exception):  # noqa: N818 - not an error: the server cannot offer this
    """Why a collector has nothing to run on this server: a reason as a label value, and advice."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(advice)
        self.reason = reason


@dataclass(frozen=True)
class Outcome:
    """How a collector's run ended, and its samples by metric; exactly one of ok, skipped and failed."""

    seconds: float
    samples: dict[str, Samples] = field(default_factory=dict)
    series: int = 0
    truncated: bool = False
    skipped: str | None = None
    failed: bool = False
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the collector delivered its metrics."""
        return not self.failed and self.skipped is None


@dataclass
class Memory:
    """What a collector keeps from run to run: texts, and which rows were shown."""

    texts: TextCache | None
    # By SQL file.
    kept: dict[str, list[str]] = field(default_factory=dict)
    # Of counters that are sums, by metric and labels: the last one, and what to add to the next.
    sums: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, enabled: Enabled) -> "Memory":
        """Return a collector's memory, empty."""
        texts = enabled.collector.declaration.texts
        return cls(TextCache(enabled.collector, texts) if texts and enabled.query_text else None)

    def rising(self, key: tuple[str, str], number: str) -> str:
        """Return a sum that never falls, as Prometheus would take what falls for a counter that began anew."""
        now = float(number)
        before, more = self.sums.get(key, (now, 0.0))
        more += max(0.0, before - now)
        self.sums[key] = now, more
        return f"{now + more:.17g}" if more else number


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


class Pass:
    """Runs collectors one after the other in a session, before a deadline (monotonic clock).

    `database` is the label datname of collectors with scope `database`.
    """

    def __init__(
        self, session: Session, collectors: Sequence[Enabled], deadline: float, database: str = NO_DATABASE
    ) -> None:
        self._session = session
        self._declared = [one.collector.declaration for one in collectors]
        self._deadline = deadline
        self._database = database
        self._facts: Facts | Exception | None = None

    def run(self, enabled: Enabled, memory: Memory) -> Outcome:
        """Run a collector within its limits; its faults end in the outcome."""
        started = time.monotonic()
        try:
            samples, truncated = self._run_whole(enabled, memory)
            series = sum(one.number for one in samples.values())
            return Outcome(time.monotonic() - started, samples, series, truncated)
        except Skip as skip:
            return Outcome(time.monotonic() - started, skipped=skip.reason, detail=str(skip))
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            # The extension was created, and its library is not loaded.
            return Outcome(time.monotonic() - started, skipped="preload", detail=one_line(error))
        except Exception as error:  # noqa: BLE001 - whatever befalls one collector must not harm the others
            return Outcome(time.monotonic() - started, failed=True, detail=f"{one_line(error)}{_hint(error)}")

    def _run_whole(self, enabled: Enabled, memory: Memory) -> tuple[dict[str, Samples], bool]:
        budget = Budget(enabled, self._deadline)
        try:
            return self._run(enabled, memory, budget)
        except LostPrepared:
            return self._run(enabled, memory, budget)

    def _run(self, enabled: Enabled, memory: Memory, budget: Budget) -> tuple[dict[str, Samples], bool]:
        known = self._needs(enabled, budget)
        declaration = enabled.collector.declaration
        extension = known.extensions.get(declaration.extension or "")
        schema = extension.schema if extension else None
        samples: dict[str, Samples] = {}
        keys: set[str] = set()
        truncated = False
        chosen = list(self._chosen(enabled, extension.columns if extension else frozenset()))
        with self._session.transaction(budget.limits(), schema):
            for query, variant in chosen:
                result = self._query(enabled, query, variant, memory)
                if ranks(enabled, query):
                    memory.kept[variant.file] = result.keys(query)
                samples.update(self._samples(enabled, query, result, memory))
                truncated |= result.truncated
                if declaration.texts and declaration.texts.key in query.labels:
                    keys.update(row[result.columns[declaration.texts.key]] or "" for row in result.rows)
        if memory.texts and declaration.texts:
            lines = memory.texts.lines(self._session, schema, keys, budget.limits())
            samples[declaration.texts.name] = Samples(lines)
        return samples, truncated

    def _chosen(self, enabled: Enabled, columns: frozenset[str]) -> Iterator[tuple[Query, Variant]]:
        for query in enabled.collector.declaration.queries:
            if variant := query.choose(self._session.server(), columns):
                yield query, variant
            elif not query.optional:
                raise Skip("version", query.otherwise)

    def _needs(self, enabled: Enabled, budget: Budget) -> Facts:
        declaration = enabled.collector.declaration
        if not declaration.role and not declaration.extension:
            return Facts(frozenset(), {})
        known = self._learned(budget)
        if (name := declaration.extension) and name not in known.extensions:
            raise Skip("extension", f"{name} is not installed in this database: run CREATE EXTENSION {name}")
        if name and not known.extensions[name].usable:
            schema = quoted(known.extensions[name].schema)
            raise Skip(
                "privilege", f"the role may not use the schema of {name}: run GRANT USAGE ON SCHEMA {schema} TO it"
            )
        if declaration.role and declaration.role not in known.roles:
            raise Skip("privilege", f"the role is no member of {declaration.role}: run GRANT {declaration.role} TO it")
        return known

    def _learned(self, budget: Budget) -> Facts:
        """Return the facts, asked for once in a pass; a catalog that is locked is waited for once, too."""
        if self._facts is None:
            roles = {one.role for one in self._declared if one.role}
            extensions = {one.extension for one in self._declared if one.extension}
            try:
                with self._session.transaction(budget.limits()):
                    self._facts = facts(self._session, roles, extensions)
            except LostPrepared:
                raise
            except Exception as error:  # noqa: BLE001 - it is raised for each collector that needs them
                self._facts = error
        if isinstance(self._facts, Exception):
            raise self._facts
        return self._facts

    def _query(self, enabled: Enabled, query: Query, variant: Variant, memory: Memory) -> "_Result":
        statement = bounded(enabled, query, enabled.collector.sql[variant.file])
        # What a database has may be much, and most databases are left at once.
        few = not enabled.collector.per_database and (enabled.top or 0) <= _FEW
        try:
            names, rows = self._session.rows(statement, few=few, settings=_kept(enabled, memory, query, variant))
        except BadStatement as bad:
            start = statement.index(enabled.collector.sql[variant.file])
            line = statement.count("\n", start, max(bad.position, start)) + 1
            raise BadContent(f"{variant.file}:{line}: {bad}") from None
        except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
            raise BadContent(f"{variant.file}: {one_line(error)}") from None
        result = _result(enabled, query, {name: position for position, name in enumerate(names)}, rows)
        wanted = query.wanted(query.measured(self._session.server()))
        if missing := wanted.difference(names):
            raise BadContent(f"{variant.file} returns no column {', '.join(sorted(missing))}")
        return result

    def _samples(self, enabled: Enabled, query: Query, result: "_Result", memory: Memory) -> dict[str, Samples]:
        before = label_text(("datname",), (self._database,)) if enabled.collector.per_database else ""
        texts: dict[tuple[str, ...], list[str]] = {}
        samples = {}
        for metric in query.measured(self._session.server()):
            labels = query.labels if metric.labels is None else metric.labels
            if labels not in texts:
                texts[labels] = label_texts(labels, [result.columns[label] for label in labels], result.rows, before)
            values = result.values(metric)
            if query.sums and metric.type == "counter":
                for row in result.summed(query.sums):
                    if (number := values[row]) is not None:
                        values[row] = memory.rising((metric.name, texts[labels][row]), number)
            lines = sample_lines(metric.name, texts[labels], values)
            samples[metric.name] = Samples(lines, pack=enabled.every is not None)
        return samples


def _kept(enabled: Enabled, memory: Memory, query: Query, variant: Variant) -> dict[str, str]:
    """Return the setting that tells a query which rows were shown before."""
    return {_KEPT: _BEHIND.join(memory.kept.get(variant.file, ()))} if ranks(enabled, query) else {}


@dataclass(frozen=True)
class _Result:
    """A query's rows, cut to what may be exported, and where its columns are in them."""

    columns: dict[str, int]
    rows: list[Row]
    truncated: bool

    def keys(self, query: Query) -> list[str]:
        """Return what tells the rows apart."""
        columns = [self.columns[label] for label in query.labels]
        return [_BETWEEN.join(row[column] or "" for column in columns) for row in self.rows]

    def summed(self, column: str) -> list[int]:
        """Return which rows have sums in them."""
        return [number for number, row in enumerate(self.rows) if row[self.columns[column]] == "t"]

    def values(self, metric: Metric) -> list[str | None]:
        """Return a metric's values row by row."""
        if metric.column is None:
            return ["1"] * len(self.rows)
        column = self.columns[metric.column]
        return [row[column] for row in self.rows]


def _result(enabled: Enabled, query: Query, columns: dict[str, int], rows: list[Row]) -> _Result:
    if ranks(enabled, query):
        return _Result(columns, rows, bool(rows) and int(rows[0][columns["all_rows"]] or 0) > len(rows))
    return _Result(columns, rows[: enabled.max_rows], len(rows) > enabled.max_rows)


def ranks(enabled: Enabled, query: Query) -> bool:
    """Return whether only the first rows of a query are exported; without labels there is one row."""
    return enabled.top is not None and bool(query.labels)


def bounded(enabled: Enabled, query: Query, statement: str) -> str:
    """Return a collector's SQL with its limit on rows."""
    if enabled.top is None or not query.labels:
        # One row more than is exported tells that there were more. The subquery's order survives a bare LIMIT.
        return f"SELECT * FROM (\n{statement}\n) AS collector LIMIT {enabled.max_rows + 1}"  # noqa: S608
    key = f" || E'{_escape(_BETWEEN)}' || ".join(f"coalesce({label}::text, '')" for label in query.labels)
    # A subquery, so that it is taken apart once and not for each row.
    kept = f"(SELECT string_to_array(current_setting('{_KEPT}', true), E'{_escape(_BEHIND)}'))::text[]"
    return (
        f"SELECT * FROM (\nSELECT *, row_number() OVER () AS place, count(*) OVER () AS all_rows FROM (\n{statement}\n"  # noqa: S608
        f") AS collector) AS ranked WHERE place <= {enabled.top} "
        f"OR place <= {enabled.top * 3 // 2} AND {key} = ANY ({kept})"
    )


def _escape(character: str) -> str:
    return f"\\x{ord(character):02x}"


def _hint(error: Exception) -> str:
    if isinstance(error, psycopg.errors.QueryCanceled):
        return " (statement_timeout of the collector, or the scrape's time)"
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return " (somebody holds a lock on what it reads)"
    return ""
