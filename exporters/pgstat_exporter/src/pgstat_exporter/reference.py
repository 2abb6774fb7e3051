"""Every metric as a table for people: what `pgstat_exporter metrics` prints and the documentation holds."""

from collections.abc import Iterable, Iterator

from pgstat_exporter.content import NEVER, OLDEST, Collector, Metric, Query
from pgstat_exporter.exposition import BUILD, OWN

# What a name ends in, its counters' `_total` taken off; the first that fits.
_UNITS = {
    "_timestamp_seconds": "Unix time, s",
    "_seconds": "s",
    "_bytes": "bytes",
    "_ratio": "ratio",
    "_xids": "transactions",
    "_mxids": "multixacts",
    "_info": "",
}
_OWN_LABELS = {
    BUILD: "version",
    "pg_up": "",
    "pg_scrape_collector_skipped": "collector, datname, reason",
}


def markdown(collectors: Iterable[Collector]) -> Iterator[str]:
    """Yield the lines of a page: the exporter's own metrics, then each collector's."""
    yield "# Metrics of pgstat_exporter"
    yield ""
    yield "Written by `python3 -m pgstat_exporter metrics`. Versions are PostgreSQL's; a metric is absent where the"
    yield "server lacks the fact. Collectors with an interval are run in the background, up to a quarter sooner when"
    yield "others are run in the same database; the rest is run at each scrape."
    yield ""
    yield "## The exporter itself"
    yield ""
    yield from _head(("metric", "type", "unit", "labels", "meaning"))
    for name, text in OWN.items():
        labels = _OWN_LABELS.get(name, "collector, datname")
        kind = "info" if name == BUILD else "gauge"
        yield f"| `{name}` | {kind} | {_unit(name)} | {labels} | {text} |"
    yield ""
    yield "`datname` is there for collectors that are run in each database. `reason` is one of extension, preload,"
    yield "privilege, version and pending (its first run is not over yet)."
    for collector in collectors:
        yield from _section(collector)


def _section(collector: Collector) -> Iterator[str]:
    declaration = collector.declaration
    run = f"every {declaration.every:g} s" if declaration.every else "at each scrape"
    where = ", in each database" if collector.per_database else ""
    needs = " and ".join(filter(None, (declaration.role, declaration.extension))) or "CONNECT alone"
    bound = f", at most {declaration.top * 3 // 2} rows (`top: {declaration.top}`)" if declaration.top else ""
    yield ""
    yield f"## {collector.name}"
    yield ""
    yield f"{declaration.help} Run {run}{where}{bound}; needs {needs}."
    yield ""
    yield from _head(("metric", "type", "unit", "labels", "versions", "source", "meaning"))
    for query in declaration.queries:
        for metric in query.metrics:
            labels = ", ".join(collector.labels(query, metric))
            facts = (metric.type, _unit(metric.name), labels, _versions(query, metric), query.source, metric.help)
            yield f"| `{metric.name}` | {' | '.join(facts)} |"
    if texts := declaration.texts:
        labels = f"{texts.key}, {texts.label}, {texts.name_label}"
        yield f"| `{texts.name}` | info |  | {labels} | {OLDEST}+ | {declaration.queries[0].source} | {texts.help} |"


def _head(columns: Iterable[str]) -> Iterator[str]:
    names = list(columns)
    yield f"| {' | '.join(names)} |"
    yield f"|{'-|' * len(names)}"


def _unit(name: str) -> str:
    stem = name.removesuffix("_total")
    return next((unit for ending, unit in _UNITS.items() if stem.endswith(ending)), "count")


def _versions(query: Query, metric: Metric) -> str:
    first = max(metric.since, min(variant.server for variant in query.sql))
    return f"{first}+" if metric.until == NEVER else f"{first} to {metric.until}"
