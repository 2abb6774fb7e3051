"""`python3 -m pgstat_exporter VERB --config FILE`."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pgstat_exporter import __version__, commands, config, content, grants, reference
from pgstat_exporter.config import Config, Target
from pgstat_exporter.content import Collector
from pgstat_exporter.scrape import Exporter
from pgstat_exporter.service import Service, load
from pgstat_exporter.strict import Problem, unknown
from pgstat_exporter.web_config import Doorkeeper

_BAD_CONFIG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return 0, 1 when it failed, 2 when the configuration is wrong."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.verb(options))
    except Problem as problem:
        print(problem, file=sys.stderr)  # noqa: T201
        return _BAD_CONFIG
    except BrokenPipeError:
        # Whoever read it, `head` say, has seen enough.
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pgstat_exporter", description="PostgreSQL's statistics for Prometheus.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True)

    serve = verbs.add_parser("serve", help="answer scrapes until SIGTERM; SIGHUP takes up a new configuration")
    serve.set_defaults(verb=_serve)
    check = verbs.add_parser("check", help="run every collector once and say how it went")
    check.add_argument("--offline", action="store_true", help="only read the configuration")
    check.set_defaults(verb=_check)
    run = verbs.add_parser("run", help="print what one collector exports")
    run.add_argument("collector", metavar="COLLECTOR")
    run.add_argument("--target", metavar="NAME", help="one of the configuration's targets (default: the dsn)")
    run.add_argument("--explain", action="store_true", help="the plans of its queries instead, in the DSN's database")
    run.set_defaults(verb=_run)
    sql = verbs.add_parser("sql", help="print the SQL that one collector runs")
    sql.add_argument("collector", metavar="COLLECTOR")
    sql.add_argument("--pg", type=int, default=18, metavar="MAJOR", help="major version of the server (18)")
    sql.set_defaults(verb=_sql)
    overview = verbs.add_parser("list", help="list the collectors; with --config, what each costs")
    overview.set_defaults(verb=_list)
    metrics = verbs.add_parser("metrics", help="print a table of every metric (Markdown)")
    metrics.set_defaults(verb=_metrics)
    rights = verbs.add_parser("grants", help="print the SQL that gives the role of the DSN what collectors need")
    rights.add_argument("--schema", default=grants.SCHEMA, help="where pg_stat_statements is (public)")
    rights.add_argument("--data", action="store_true", help="also what lets the role read every table's rows")
    rights.set_defaults(verb=_grants)
    for verb in (serve, check, run, sql, overview, metrics, rights):
        verb.add_argument("--config", type=Path, required=verb in (serve, check, run), metavar="FILE")
    return parser


def _serve(options: argparse.Namespace) -> int:
    return Service(options.config, load(options.config)).run()


def _check(options: argparse.Namespace) -> int:
    loaded = load(options.config)
    Doorkeeper(loaded.settings.web_config)
    if not options.offline:
        return commands.check(loaded.settings, loaded.collectors)
    print(f"{options.config}: well-formed; collectors: {', '.join(one.name for one in loaded.collectors)}")  # noqa: T201
    return 0


def _run(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    known = config.collectors(settings)
    _named(options.collector, known)
    # One that is off can be tried, too.
    wanted = {options.collector: known[options.collector]}
    own = {
        name: one.model_copy(update={"enabled": True}) for name, one in settings.collectors.items() if name in wanted
    }
    (enabled,) = config.enabled(settings.model_copy(update={"collectors": own}), wanted, str(options.config))
    target = _target(settings, options.target)
    return commands.run(target, enabled, explain=options.explain, seconds=settings.scrape_timeout)


def _target(settings: Config, name: str | None) -> Target:
    target = settings.targets.get(name) if name else settings.own()
    if target is None:
        raise Problem(
            f"--target {name}: {unknown(name, settings.targets)}" if name else "--target: name one of targets"
        )
    return target


def _sql(options: argparse.Namespace) -> int:
    collectors = config.collectors(config.load(options.config)) if options.config else content.load()
    return commands.sql(_named(options.collector, collectors), commands.known_version(options.pg))


def _metrics(options: argparse.Namespace) -> int:
    collectors = config.collectors(config.load(options.config)) if options.config else content.load()
    print("\n".join(reference.markdown(collectors.values())))  # noqa: T201
    return 0


def _named(name: str, collectors: dict[str, Collector]) -> Collector:
    if name not in collectors:
        raise Problem(f"{name}: no such collector; {unknown(name, collectors)}")
    return collectors[name]


def _list(options: argparse.Namespace) -> int:
    if options.config is None:
        defaults = Config(dsn="")
        return commands.overview(config.enabled(defaults, content.load(), ""), {})
    loaded = load(options.config)
    target = loaded.settings.own() or next(iter(loaded.settings.targets.values()))
    exporter = Exporter(target, loaded.collectors)
    with contextlib.closing(exporter):
        outcomes, trouble = commands.outcomes_of(exporter, loaded.settings.scrape_timeout)
    commands.overview(loaded.collectors, outcomes)
    if trouble:
        print(f"the database does not answer: {trouble}", file=sys.stderr)  # noqa: T201
    return int(bool(trouble))


def _grants(options: argparse.Namespace) -> int:
    if options.config is None:
        wanted = grants.needed(content.load().values(), schema=options.schema, data=options.data)
        print(grants.text(wanted))  # noqa: T201
        return 0
    loaded = load(options.config)
    targets = filter(None, (loaded.settings.own(), *loaded.settings.targets.values()))
    scripts = [grants.of_target(one, loaded.collectors, options.schema, data=options.data) for one in targets]
    print("\n".join(dict.fromkeys(scripts)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
