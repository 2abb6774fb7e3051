"""Applying migrations: in a transaction with bounded retries, or statement by statement outside of one."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from messwarte_migrate import MigrationError, history, indexes, objects
from messwarte_migrate.files import Migration, load
from messwarte_migrate.session import Run, pauses, prepare, say
from messwarte_migrate.statements import Statement

ATTEMPTS = 10
_TRANSACTION_SECONDS = 3600.0
_CONCURRENT_SECONDS = 12 * 3600.0
_RETRIED = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


def apply(dsn: str, directory: Path, lock_timeout: float, wait: float) -> Iterator[tuple[str, float]]:
    """Apply what is pending, yield each file with the seconds it took; raise MigrationError at the first that fails."""
    migrations = load(directory)
    with Run(dsn, wait) as run:
        history.create(run.work)
        statuses = history.compare(migrations, history.read(run.work), objects.lost(run.work, migrations))
        problems = [problem for status in statuses if (problem := status.problem)]
        if problems:
            raise MigrationError("\n".join(problems))
        for status in statuses:
            if status.migration and status.to_do:
                run.check()
                yield status.file, _one(run, status.migration, lock_timeout)


def _one(run: Run, migration: Migration, lock_timeout: float) -> float:
    prepare(run.work)
    if migration.transactional:
        return _in_transaction(run, migration, migration.lock_timeout or lock_timeout)
    return _outside(run, migration)


def _in_transaction(run: Run, migration: Migration, lock_timeout: float) -> float:
    waits = pauses(ATTEMPTS)
    started = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        with run.watched(migration.file) as blockers:
            try:
                with run.work.transaction():
                    row = history.begin(run.work, migration)
                    _limit(run.work, lock_timeout, migration.statement_timeout or _TRANSACTION_SECONDS)
                    run.work.execute(migration.text.encode())
                    run.work.execute(b"RESET ROLE")
                    return history.done(run.work, row)
            except _RETRIED as error:
                reason = f"{_primary(error)}{f'; in the way: {blockers()}' if blockers() else ''}"
            except psycopg.Error as error:
                raise MigrationError(explain(error, migration, migration.text, 1)) from None
        if attempt < ATTEMPTS:
            # Whoever queued behind us gets on meanwhile.
            say(f"{migration.file}: {reason}; attempt {attempt} of {ATTEMPTS}, trying again")
            time.sleep(next(waits))
    raise MigrationError(
        f"{migration.file}: {reason}; gave up after {ATTEMPTS} attempts in {time.monotonic() - started:.0f} s. "
        "Nothing was changed. Run apply again at a quieter time, or give the file a longer -- lock_timeout:"
    )


def _limit(connection: history.Connection, lock_timeout: float, statement_timeout: float) -> None:
    values = {"lock_timeout": lock_timeout, "statement_timeout": statement_timeout}
    for name, seconds in values.items():
        milliseconds = sql.Literal(f"{int(seconds * 1000)}ms")
        connection.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), milliseconds))


def _outside(run: Run, migration: Migration) -> float:
    row = history.begin(run.work, migration)
    # No lock_timeout unless the file asks for one: building an index CONCURRENTLY blocks nobody while it waits for
    # old snapshots, and a timeout there would only leave an invalid index.
    _limit(run.work, migration.lock_timeout or 0, migration.statement_timeout or _CONCURRENT_SECONDS)
    with run.watched(migration.file):
        for statement in migration.statements:
            try:
                _statement(run, migration, statement)
            except (MigrationError, KeyboardInterrupt) as error:
                _note(run, row, str(error) or "interrupted")
                raise
    return history.done(run.work, row)


def _note(run: Run, row: int, error: str) -> None:
    try:
        history.failed(run.work, row, error)
    except psycopg.Error as second:
        say(f"the failure could not be noted: {_primary(second)}")


def _statement(run: Run, migration: Migration, statement: Statement) -> None:
    def explained(error: psycopg.Error, more: str = "") -> MigrationError:
        return MigrationError(explain(error, migration, statement.text, statement.line, more))

    wanted = _named(migration, statement)
    try:
        if wanted is None:
            run.work.execute(statement.text.encode())
            return
        if indexes.make_way(run.work, wanted):
            run.work.execute(statement.text.encode())
    except psycopg.Error as error:
        raise explained(error, indexes.advice(error, wanted) if wanted else "") from None
    except MigrationError as error:
        raise MigrationError(f"{migration.file}, line {statement.line}: {error}") from None
    indexes.verify(run.work, wanted)


def _named(migration: Migration, statement: Statement) -> indexes.Wanted | None:
    try:
        return indexes.parse(statement.bare)
    except MigrationError as error:
        raise MigrationError(f"{migration.file}, line {statement.line}: {error}") from None


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or " ".join(str(error).split())


def explain(error: psycopg.Error, migration: Migration, text: str, first_line: int, more: str = "") -> str:
    """Return an error with the file's line, and the server's detail and hint."""
    diag = error.diag
    position = int(diag.statement_position or 1)
    lines = [f"{migration.file}, line {first_line + text.count(chr(10), 0, position - 1)}: {_primary(error)}"]
    told = (("detail", diag.message_detail), ("hint", diag.message_hint), ("context", diag.context), ("next", more))
    return "\n".join([*lines, *(f"  {name}: {value}" for name, value in told if value)])
