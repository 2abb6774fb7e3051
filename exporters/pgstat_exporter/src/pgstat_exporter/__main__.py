"""`python3 -m pgstat_exporter serve|check --config FILE`, and `grants`."""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from pgstat_exporter import __version__, config, content, grants, log
from pgstat_exporter.collect import Outcome
from pgstat_exporter.config import Config, Enabled
from pgstat_exporter.scrape import Exporter
from pgstat_exporter.session import Session
from pgstat_exporter.strict import Problem
from pgstat_exporter.web import Server

_BAD_CONFIG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return 0, 1 when it failed, 2 when the configuration is wrong."""
    options = _parser().parse_args(arguments)
    if options.verb == "grants" and options.config is None:
        return _say([grants.text(grants.needed(content.load().values(), schema=options.schema))])
    try:
        settings = config.load(options.config)
        collectors = config.enabled(settings, content.load(), str(options.config))
    except Problem as problem:
        print(problem, file=sys.stderr)  # noqa: T201
        return _BAD_CONFIG
    if options.verb == "grants":
        return _say([grants.of_config(settings, collectors, options.schema)])
    if options.verb == "serve":
        return serve(settings, collectors)
    if options.offline:
        return _say([f"{options.config}: well-formed; collectors: {', '.join(one.name for one in collectors)}"])
    return check(settings, collectors)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pgstat_exporter", description="PostgreSQL's statistics for Prometheus.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    serve_verb = verbs.add_parser("serve", help="answer scrapes until SIGTERM")
    check_verb = verbs.add_parser("check", help="run every collector once and say how it went")
    check_verb.add_argument("--offline", action="store_true", help="only read the configuration")
    grants_verb = verbs.add_parser("grants", help="print the SQL that gives the role of the DSN what collectors need")
    grants_verb.add_argument("--schema", default=grants.SCHEMA, help="where pg_stat_statements is (public)")
    for verb in (serve_verb, check_verb, grants_verb):
        verb.add_argument("--config", type=Path, required=verb is not grants_verb, metavar="FILE")
    return parser


def _exporter(settings: Config, collectors: list[Enabled]) -> tuple[Session, Exporter]:
    password_file = Path(settings.password_file) if settings.password_file else None
    session = Session(settings.dsn, password_file)
    return session, Exporter(session, collectors, settings.scrape_timeout)


def serve(settings: Config, collectors: list[Enabled]) -> int:
    """Serve until SIGTERM or SIGINT; a database that is down is reported, never a reason to end."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _, exporter = _exporter(settings, collectors)
    try:
        server = Server(settings.listen, settings.port, exporter, settings.scrape_timeout)
    except OSError as error:
        log.write("error", f"cannot listen on {settings.listen} port {settings.port}: {error.strerror}")
        return 1
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log.write("info", "listening", address=settings.listen, port=settings.port, version=__version__)
    stop.wait()
    server.shutdown()
    server.server_close()
    exporter.close()
    log.write("info", "stopped")
    return 0


def check(settings: Config, collectors: list[Enabled]) -> int:
    """Connect, run every collector once and say how it went; return 1 when one failed."""
    session, exporter = _exporter(settings, collectors)
    try:
        run = exporter.observe(settings.scrape_timeout)
        if not run.answered:
            _say([f"database    failed: {run.trouble or 'no answer in time'}"])
            return 1
        lines = [f"database    ok: {session.describe()}"]
        missing = Outcome(0, failed=True, detail="did not finish in time")
        outcomes = {one.name: run.outcomes.get(one.name, missing) for one in collectors}
        _say(lines + [f"{name:<11} {_words(outcome)}" for name, outcome in outcomes.items()])
        return int(any(outcome.failed for outcome in outcomes.values()))
    finally:
        exporter.close()


def _words(outcome: Outcome) -> str:
    if outcome.failed:
        return f"failed: {outcome.detail}"
    if outcome.skipped:
        return f"skipped ({outcome.skipped}): {outcome.detail}"
    more = "; there are more rows than its limit" if outcome.truncated else ""
    return f"ok: {outcome.series} series in {outcome.seconds * 1000:.0f} ms{more}"


def _say(lines: list[str]) -> int:
    print("\n".join(lines))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
