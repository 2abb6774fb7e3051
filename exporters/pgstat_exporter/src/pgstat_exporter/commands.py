"""What people ask at the command line: does it work, what does a collector say, cost and need."""

import time
from collections.abc import Iterable, Sequence

import psycopg

from pgstat_exporter.collect import Outcome, bounded
from pgstat_exporter.config import Config, Enabled, Target
from pgstat_exporter.content import NEVER, Collector
from pgstat_exporter.exposition import Part
from pgstat_exporter.facts import facts
from pgstat_exporter.scrape import Exporter, families
from pgstat_exporter.session import Limits, Session, Unreachable, one_line
from pgstat_exporter.strict import Problem

_UNFINISHED = Outcome(0, failed=True, detail="did not finish in time")


def check(settings: Config, collectors: Sequence[Enabled]) -> int:
    """Run every collector once on every server and say how it went; return 1 when one failed."""
    targets = dict(settings.targets)
    if own := settings.own():
        targets = {"connection": own, **targets}
    return max(_check(name, target, collectors, settings.scrape_timeout) for name, target in targets.items())


def _check(name: str, target: Target, collectors: Sequence[Enabled], seconds: float) -> int:
    exporter = Exporter(target, collectors)
    try:
        outcomes, trouble = outcomes_of(exporter, seconds)
        if trouble:
            _say([f"{name} failed: {trouble}"])
            return 1
        width = max(20, *map(len, outcomes))
        _say([f"{name:<{width}} ok: {exporter.described()}"])
        _say(f"{place:<{width}} {_words(outcome)}" for place, outcome in outcomes.items())
        if any(one.collector.per_database for one in collectors) and not any(" in " in place for place in outcomes):
            _say([f"{'databases':<{width}} none fits include and exclude: what is read in each database is not read"])
        return int(any(outcome.failed for outcome in outcomes.values()))
    finally:
        exporter.close()


def outcomes_of(exporter: Exporter, seconds: float) -> tuple[dict[str, Outcome], str]:
    """Run every collector of an exporter once; return how each went, and why the server did not answer."""
    run = exporter.observe(seconds)
    if not run.answered:
        return {}, run.trouble or "no answer in time"
    exporter.slow.run_due()
    found = {one.name: run.outcomes.get(one.name, _UNFINISHED) for one in exporter.collectors if one.every is None}
    found.update((entry.place, entry.last) for entry in exporter.slow.entries())
    return dict(sorted(found.items())), ""


def run(target: Target, enabled: Enabled, *, explain: bool, seconds: float) -> int:
    """Print what a collector exports, or the plans of its queries; return 1 when it failed."""
    if explain:
        return _explain(target, enabled)
    exporter = Exporter(target, [enabled])
    try:
        outcomes, trouble = outcomes_of(exporter, seconds)
        good = [outcome for outcome in outcomes.values() if outcome.ok]
        _say([text] if (text := Part(families(enabled.collector, good)).plain.decode().rstrip()) else [])
        comments = [f"# {place}: {_words(outcome)}" for place, outcome in outcomes.items()]
        _say(comments or [f"# failed: {trouble}"])
        return int(bool(trouble) or any(outcome.failed for outcome in outcomes.values()))
    finally:
        exporter.close()


def _explain(target: Target, enabled: Enabled) -> int:
    declaration = enabled.collector.declaration
    session = Session(target.dsn, target.password_file)
    try:
        session.open(time.monotonic() + enabled.statement_timeout)
        limits = Limits(enabled.statement_timeout, enabled.lock_timeout)
        session.prepare_no_more()
        with session.transaction(limits):
            extensions = facts(session, [], [declaration.extension or ""]).extensions
        extension = extensions.get(declaration.extension or "")
        with session.transaction(limits, extension.schema if extension else None):
            for query in declaration.queries:
                variant = query.choose(session.server(), extension.columns if extension else frozenset())
                if variant is None:
                    _say([f"-- {query.source}: {'left out' if query.optional else query.otherwise}"])
                    continue
                statement = bounded(enabled, query, enabled.collector.sql[variant.file])
                plan = session.fetch(f"EXPLAIN (ANALYZE, BUFFERS)\n{statement}".encode())
                _say([f"-- {variant.file}", *(str(row["QUERY PLAN"]) for row in plan), ""])
    except (psycopg.Error, Unreachable) as error:
        _say([f"failed: {one_line(error)}"])
        return 1
    else:
        return 0
    finally:
        session.close()


def sql(collector: Collector, server: int) -> int:
    """Print the SQL that a collector runs on a major version, with the newest version of its extension."""
    for query in collector.declaration.queries:
        columns = frozenset(need for variant in query.sql for need in variant.needs)
        variant = query.choose(server, columns)
        if variant is None:
            _say([f"-- {query.source}: {f'not on PostgreSQL {server}' if query.optional else query.otherwise}"])
        else:
            _say([f"-- {variant.file}", f"{collector.sql[variant.file]};", ""])
    return 0


def overview(collectors: Iterable[Enabled], outcomes: dict[str, Outcome]) -> int:
    """Print the collectors that there are, and what their last run cost where there was one."""
    row = "{:<20} {:<13} {:<9} {:<21} {:>7} {:>7} {:>8}"
    _say([row.format("collector", "run", "scope", "needs", "metrics", "series", "ms").rstrip()])
    for one in collectors:
        declaration = one.collector.declaration
        ran = [outcome for place, outcome in outcomes.items() if place.split(" in ")[0] == one.name]
        good = [outcome for outcome in ran if outcome.ok]
        cost = (sum(o.series for o in good), f"{sum(o.seconds for o in good) * 1000:.0f}") if good else ("", "")
        tier = f"every {one.every:g}s" if one.every else "at scrape"
        needs = declaration.extension or declaration.role or "CONNECT"
        metrics = sum(1 for _ in one.collector.metrics())
        _say([row.format(one.name, tier, declaration.scope, needs, metrics, *cost).rstrip()])
    return 0


def known_version(server: int) -> int:
    """Return a major version. Raises Problem for one that no collector is made for."""
    if not 15 <= server < NEVER:
        raise Problem(f"--pg {server}: PostgreSQL 15 and later are supported")
    return server


def _words(outcome: Outcome) -> str:
    if outcome.failed:
        return f"failed: {outcome.detail}"
    if outcome.skipped:
        return f"skipped ({outcome.skipped}): {outcome.detail}"
    more = "; there are more rows than are shown" if outcome.truncated else ""
    return f"ok: {outcome.series} series in {outcome.seconds * 1000:.0f} ms{more}"


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)  # noqa: T201
