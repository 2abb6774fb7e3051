"""The collectors as content: each a YAML declaration of metrics beside the SQL files that fill them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pgstat_exporter.exposition import OWN
from pgstat_exporter.strict import Duration, Problem, Strict, read

OLDEST, NEVER = 15, 999
DATABASE = "datname"
# Metrics of the exporter's process, which prometheus-client names.
_PROCESS = "process_"
_NAME = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
_SQL = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*\.sql$")]
# PostgreSQL's own roles for monitoring, from the least to all of them, and the one that reads tables; each is there
# from version 15 on.
_ROLE = Literal["pg_read_all_stats", "pg_read_all_settings", "pg_stat_scan_tables", "pg_monitor", "pg_read_all_data"]
# A statement's last semicolon, and comments behind it.
_END = re.compile(r";\s*(--[^\n]*\s*)*$")
_COLUMN = re.compile(r"\bAS\s+([a-z_0-9]+)\s*(?=,|\bFROM\b|$)", re.IGNORECASE)


def _once(labels: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in labels if labels.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is there twice")
    return labels


_Labels = Annotated[tuple[_NAME, ...], Field(strict=False), AfterValidator(_once)]


class Metric(Strict):
    """One metric family: its samples come from `column`, one per row; an info metric has no column and is always 1."""

    name: _NAME
    type: Literal["counter", "gauge", "info"]
    help: Annotated[str, Field(min_length=1)]
    column: _NAME | None = None
    labels: _Labels | None = None
    # The first and the last major version of the server that has the fact.
    since: Annotated[int, Field(ge=OLDEST)] = OLDEST
    until: Annotated[int, Field(ge=OLDEST)] = NEVER

    @model_validator(mode="after")
    def _conventions(self) -> Self:
        ending = {"counter": "_total", "info": "_info"}.get(self.type)
        if ending and not self.name.endswith(ending):
            raise ValueError(f"{self.name}: the name of a metric of type {self.type} ends in {ending}")
        if not ending and self.name.endswith(("_total", "_info")):
            raise ValueError(f"{self.name}: a gauge ends neither in _total nor in _info")
        if (self.column is None) != (self.type == "info"):
            raise ValueError(f"{self.name}: counters and gauges name a column, info metrics do not")
        if self.since > self.until:
            raise ValueError(f"{self.name}: since {self.since} is after until {self.until}")
        return self

    def on(self, first: int, last: int) -> bool:
        """Return whether any of these major versions has the fact."""
        return self.since <= last and first <= self.until


class Variant(Strict):
    """An SQL file and where it fits: servers from a major version on, extension columns (`view.column`) that exist."""

    file: _SQL
    server: Annotated[int, Field(ge=OLDEST)] = OLDEST
    needs: tuple[str, ...] = Field(default=(), strict=False)


class Query(Strict):
    """A row shape: SQL variants, of which the first that fits the server is run, and the metrics in its columns."""

    # The views and functions that the numbers come from.
    source: Annotated[str, Field(min_length=1)]
    sql: tuple[Variant, ...] = Field(min_length=1, strict=False)
    metrics: tuple[Metric, ...] = Field(min_length=1, strict=False)
    labels: _Labels = ()
    # A column that is true where the counters are sums over what may be dropped; those never fall.
    sums: _NAME | None = None
    # Where no variant fits: an optional query is left out, otherwise the collector is skipped with this advice.
    optional: bool = False
    otherwise: str = "no variant of its SQL fits this server"

    def choose(self, server: int, columns: frozenset[str]) -> Variant | None:
        """Return the first variant for a server's major version and the extension's columns."""
        fitting = (v for v in self.sql if server >= v.server and columns.issuperset(v.needs))
        return next(fitting, None)

    def measured(self, server: int) -> list[Metric]:
        """Return the metrics that a server of a major version has."""
        return [metric for metric in self.metrics if metric.on(server, server)]

    def columns(self, variant: Variant) -> set[str]:
        """Return the columns that a variant has to deliver: those of the versions that it is chosen for."""
        newer = [one.server - 1 for one in self.sql if one.server > variant.server]
        return self.wanted(one for one in self.metrics if one.on(variant.server, min(newer, default=NEVER)))

    def wanted(self, metrics: Iterable[Metric]) -> set[str]:
        """Return the columns that metrics are made of."""
        columns = {*self.labels, *filter(None, (self.sums,))}
        for metric in metrics:
            columns.update(metric.labels or (), filter(None, (metric.column,)))
        return columns


class Texts(Strict):
    """Texts behind the values of a label (statements by their id), fetched once and exported as an info metric."""

    file: _SQL
    key: _NAME
    # The label for the name that the application gives a statement in a comment.
    name_label: _NAME
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*_info$")]
    label: _NAME
    help: str


class Declaration(Strict):
    """A collector: what it needs, how often and how long it may run, and its queries."""

    help: str
    queries: tuple[Query, ...] = Field(min_length=1, strict=False)
    # `grants` asks for it, and without it the collector is skipped.
    role: _ROLE | None = None
    extension: str | None = None
    # `database`: run in each database, whose name becomes the label datname.
    scope: Literal["server", "database"] = "server"
    # Without it, at each scrape.
    every: Duration | None = None
    statement_timeout: Duration = 1.0
    lock_timeout: Duration = 0.2
    max_rows: Annotated[int, Field(ge=1)] = 3000
    # The first rows in the order of the SQL; one of them stays until it is not among the first three halves of it.
    top: Annotated[int, Field(ge=1)] | None = None
    texts: Texts | None = None

    @model_validator(mode="after")
    def _slow_where_many(self) -> Self:
        if self.scope == "database" and self.every is None:
            raise ValueError("scope: database wants every: a scrape cannot wait for all databases")
        labels = {name for query in self.queries for name in (*query.labels, *_of_metrics(query))}
        if self.scope == "database" and DATABASE in labels:
            raise ValueError(f"the label {DATABASE} is added to every metric of scope database")
        if self.texts and self.scope == "database":
            raise ValueError("texts are for scope server only")
        return self


def _of_metrics(query: Query) -> Iterator[str]:
    for metric in query.metrics:
        yield from metric.labels or ()


@dataclass(frozen=True)
class Collector:
    """A declaration under its name, with the text of its SQL files."""

    name: str
    declaration: Declaration
    sql: dict[str, str]

    @property
    def per_database(self) -> bool:
        """Whether it is run in each database."""
        return self.declaration.scope == "database"

    def labels(self, query: Query, metric: Metric) -> tuple[str, ...]:
        """Return the labels of a metric in the order in which they are shown."""
        own = query.labels if metric.labels is None else metric.labels
        return (DATABASE, *own) if self.per_database else own

    def metrics(self) -> Iterator[Metric]:
        """Yield every metric that the collector may export."""
        for query in self.declaration.queries:
            yield from query.metrics
        if texts := self.declaration.texts:
            labels = (texts.key, texts.label, texts.name_label)
            yield Metric(name=texts.name, type="info", help=texts.help, labels=labels)


def load(*more: Path) -> dict[str, Collector]:
    """Return our collectors and those of further folders by name, or raise Problem."""
    collectors: dict[str, Collector] = {}
    for folder in (files("pgstat_exporter") / "collectors", *more):
        for collector in _of_folder(folder):
            if collector.name in collectors:
                raise Problem(f"{folder}/{collector.name}.yaml: there is a collector of this name already")
            collectors[collector.name] = collector
    _refuse_doubles(collectors.values())
    return dict(sorted(collectors.items()))


def _of_folder(folder: Traversable) -> list[Collector]:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise Problem(f"{folder}: cannot be read: {error.strerror}") from None
    for name in names:
        # Other files may be there, the configuration above all.
        if name.endswith(".yml") and re.search(r"^queries:", _text(folder / name), re.MULTILINE):
            raise Problem(f"{folder}/{name}: the name of a collector's declaration ends in .yaml")
    return [_load(folder, name) for name in names if name.endswith(".yaml")]


def _load(folder: Traversable, name: str) -> Collector:
    declaration = read(Declaration, _text(folder / name), name)
    wanted = [(variant.file, query.columns(variant)) for query in declaration.queries for variant in query.sql]
    if declaration.texts:
        wanted.append((declaration.texts.file, {declaration.texts.key, declaration.texts.label}))
    sql = {}
    for file, columns in wanted:
        if not (folder / file).is_file():
            raise Problem(f"{name}: {file}: no such file beside the declaration")
        sql[file] = _END.sub("", _text(folder / file).rstrip())
        if missing := columns.difference(output_columns(sql[file])):
            raise Problem(f"{file}: no output column is named AS {' or AS '.join(sorted(missing))}; {name} wants it")
    return Collector(name.removesuffix(".yaml"), declaration, sql)


def _text(file: Traversable) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{file}: cannot be read: {error}") from None


def output_columns(sql: str) -> list[str]:
    """Return the names that a query's last SELECT, at the start of a line, gives by AS to what it returns."""
    text = re.sub(r"--[^\n]*", "", sql)
    last = re.split(r"^SELECT\b", text, flags=re.MULTILINE)[-1]
    return [name.lower() for name in _COLUMN.findall(re.split(r"^FROM\b", last, flags=re.MULTILINE)[0])]


def _refuse_doubles(collectors: Iterable[Collector]) -> None:
    owner: dict[str, str] = {}
    for collector in collectors:
        for metric in collector.metrics():
            if metric.name in OWN or metric.name.startswith(_PROCESS):
                raise Problem(f"{collector.name}.yaml: {metric.name} is a name of the exporter's own metrics")
            if metric.name in owner:
                raise Problem(f"{collector.name}.yaml: {metric.name} is declared in {owner[metric.name]}.yaml already")
            owner[metric.name] = collector.name
