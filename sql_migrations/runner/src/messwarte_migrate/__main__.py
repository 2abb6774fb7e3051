"""`python3 -m messwarte_migrate apply|status|refresh --dsn DSN --directory DIR`."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import psycopg

from messwarte_migrate import MigrationError, __version__, history, objects
from messwarte_migrate.apply import apply
from messwarte_migrate.files import duration, load
from messwarte_migrate.history import Status
from messwarte_migrate.refresh import refresh
from messwarte_migrate.session import connect, holder

_OK, _FAILED, _PENDING, _INTERRUPTED = 0, 1, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return 0, 1 when it failed, 3 when `status` finds something pending."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return {"apply": _apply, "status": _status, "refresh": _refresh}[options.verb](options)
    except MigrationError as error:
        _complain(str(error))
    except psycopg.Error as error:
        _complain(f"the database: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        _complain("interrupted; run it again to go on")
        return _INTERRUPTED
    return _FAILED


def _interrupt(*_: object) -> None:
    # As if by Ctrl-C: the statement under way is cancelled on the server before this process ends.
    raise KeyboardInterrupt


def _complain(text: str) -> None:
    print("\n".join(f"error: {line}" if line[:1] != " " else line for line in text.splitlines()), file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="messwarte_migrate", description="Versioned SQL for a database in use.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    apply_verb = verbs.add_parser("apply", help="apply what is pending")
    status = verbs.add_parser("status", help="show every file's state: 0 current, 3 pending, 1 not in order")
    refresh_verb = verbs.add_parser("refresh", help="refresh materialised views beside their readers")
    refresh_verb.add_argument("views", nargs="*", metavar="VIEW", help="only these (default: all of this role)")
    for verb in (apply_verb, status, refresh_verb):
        verb.add_argument("--dsn", required=True, help="libpq connection string; a password belongs into PGPASSFILE")
        needed = verb is not refresh_verb
        verb.add_argument("--directory", type=Path, required=needed, metavar="DIR", help="versioned/ and repeatable/")
        verb.add_argument("--json", action="store_true", help="one JSON object instead of text")
    for verb in (apply_verb, refresh_verb):
        verb.add_argument(
            "--lock-timeout", type=_duration, default=5.0, metavar="TIME", help="wait for one lock (default 5s)"
        )
        verb.add_argument(
            "--wait", type=_duration, default=300.0, metavar="TIME", help="wait for another run (default 5m)"
        )
    return parser


def _duration(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _out(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _apply(options: argparse.Namespace) -> int:
    applied: list[dict[str, object]] = []
    error: str | None = None
    try:
        for file, seconds in apply(options.dsn, options.directory, options.lock_timeout, options.wait):
            applied.append({"file": file, "seconds": round(seconds, 3)})
            if not options.json:
                _out(f"{file}  applied in {seconds:.1f} s")
    except MigrationError as failure:
        if not options.json:
            raise
        error = str(failure)
    if options.json:
        _out(json.dumps({"applied": applied, "error": error}, indent=2))
    elif not applied:
        _out("nothing to apply: the database is current")
    else:
        _out(f"{len(applied)} applied: the database is current")
    return _FAILED if error else _OK


def _status(options: argparse.Namespace) -> int:
    migrations = load(options.directory)
    connection = connect(options.dsn)
    try:
        statuses = history.compare(migrations, history.read(connection), objects.lost(connection, migrations))
        running = holder(connection)
        database = connection.info.dbname
    finally:
        connection.close()
    problems = [problem for status in statuses if (problem := status.problem)]
    pending = [status.file for status in statuses if status.to_do]
    state, code = ("broken", _FAILED) if problems else ("pending", _PENDING) if pending else ("current", _OK)
    if options.json:
        files = [_as_json(status) for status in statuses]
        content = {"database": database, "state": state, "running": running, "files": files, "problems": problems}
        _out(json.dumps(content, indent=2))
        return code
    width = max((len(status.file) for status in statuses), default=0)
    for status in statuses:
        _out(f"{status.file:<{width}}  {_words(status)}")
    for problem in problems:
        _complain(problem)
    if running:
        _out("a run is under way: process {pid}, {state}: {query}".format(**running))
    _out(f"database {database}: {state}{f', {len(pending)} to apply' if pending else ''}")
    return code


def _words(status: Status) -> str:
    entry = status.entry
    if entry is None:
        return status.state
    if status.lost:
        return f"lost: {', '.join(status.lost)}"
    if entry.applied_at is None:
        return f"{status.state}{f': {entry.error.splitlines()[0]}' if entry.error else ''}"
    when = f"{entry.applied_at:%Y-%m-%d %H:%M:%S}, took {entry.seconds or 0:.1f} s"
    return f"applied {when}" if status.state == "applied" else f"{status.state} (applied {when})"


def _as_json(status: Status) -> dict[str, object]:
    entry = status.entry
    version = status.migration.version if status.migration else entry.version if entry else None
    return {
        "file": status.file,
        "version": version,
        "state": status.state,
        "checksum": status.migration.checksum if status.migration else None,
        "applied_checksum": entry.checksum if entry and entry.applied_at else None,
        "applied_at": entry.applied_at.isoformat() if entry and entry.applied_at else None,
        "seconds": entry.seconds if entry else None,
        "error": entry.error if entry else None,
        "lost": list(status.lost),
    }


def _refresh(options: argparse.Namespace) -> int:
    done = []
    for one in refresh(options.dsn, options.views, options.lock_timeout, options.wait):
        done.append(one)
        if not options.json:
            rows = f", {one.rows} rows" if one.rows is not None else ""
            why = f": {one.error}" if one.error else f" in {one.seconds:.2f} s"
            _out(f"{one.view}  {one.state}{why}{rows}")
    if options.json:
        _out(json.dumps({"views": [asdict(one) for one in done]}, indent=2))
    elif not done:
        _out("there is no materialised view of this role")
    return _FAILED if any(one.state == "failed" for one in done) else _OK


if __name__ == "__main__":
    sys.exit(main())
