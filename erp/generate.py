"""`erp generate`: the schema where it is missing, and rows in one transaction: all of them or none."""

import argparse
import contextlib
import datetime
import logging
import re
import time
from collections.abc import Callable, Iterator
from importlib import resources

import psycopg
from psycopg import sql

from erp import ErpError
from erp.plan import SIZES, Plan
from erp.progress import Progress
from erp.rows import COLUMNS, blocks

Cursor = psycopg.Cursor[tuple[object, ...]]

# Two generators at once must not both find the tables empty.
_LOCK = 0x4D57_4552
_CONSTRAINT = re.compile(rb"ALTER TABLE (\w+) ADD CONSTRAINT (\w+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--dsn", required=True, help="libpq connection string, as the tables' owner")
    parser.add_argument("--size", choices=sorted(SIZES, key=lambda size: SIZES[size].movements), default="small")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, size and day give the same data")
    parser.add_argument(
        "--until", type=datetime.date.fromisoformat, default=None, help="all is before this day (today)"
    )
    parser.add_argument("--if-empty", action="store_true", help="end well, changing nothing, where there are rows")


def run(options: argparse.Namespace) -> int:
    """Fill the database; return 0. Raises ErpError, having changed nothing."""
    # What it warns of at a lost connection, the error says too.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    until = options.until or datetime.datetime.now(datetime.UTC).date()

    def draw() -> Plan:
        _say(f"drawing {SIZES[options.size].movements:,} movements before {until}, seed {options.seed}")
        return Plan(SIZES[options.size], options.seed, until)

    try:
        filled = _transaction(options.dsn, draw, if_empty=options.if_empty)
    except psycopg.Error as error:
        raise ErpError(f"the database: {' '.join(str(error).split())}; nothing was changed") from error
    if filled:
        _analyze(options.dsn)
    _say("next: python3 -m erp serve")
    return 0


def _transaction(dsn: str, draw: Callable[[], Plan], *, if_empty: bool) -> bool:
    """Fill an empty database; False where it has rows and that is well. Raises ErpError where it is not."""
    with psycopg.connect(dsn, application_name="erp generate") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        present = _present(cursor)
        filled = [table for table in present if _has_rows(cursor, table)]
        if filled and if_empty:
            _say(f"nothing to do: {', '.join(filled)} has rows already")
            return False
        if filled:
            raise ErpError(f"{', '.join(filled)} has rows already: nothing was changed. Take an empty database.")
        tables, constraints = schema()
        if present:
            _empty(cursor, constraints)
        else:
            cursor.execute(tables)
        _fill(cursor, draw())
        _constrain(cursor, constraints)
    return True


def schema() -> tuple[bytes, list[bytes]]:
    """Return schema.sql in two parts: the tables, and the constraints, each a statement."""
    text = resources.files("erp").joinpath("schema.sql").read_bytes()
    tables, _, rest = text.partition(b"-- Constraints:")
    return tables, [b"ALTER TABLE" + part.rstrip() for part in rest.split(b"ALTER TABLE")[1:]]


def _present(cursor: Cursor) -> list[str]:
    """Return the ERP's tables that exist: all or none. Raises ErpError for some."""
    cursor.execute("SELECT t FROM unnest(%s::text[]) AS t WHERE to_regclass(t) IS NOT NULL", (list(COLUMNS),))
    present = [str(table) for (table,) in cursor.fetchall()]
    missing = sorted(set(COLUMNS) - set(present))
    if present and missing:
        raise ErpError(f"the schema is incomplete, {', '.join(missing)} is missing: nothing was changed")
    return present


def _has_rows(cursor: Cursor, table: str) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(table))
    return cursor.execute(query).fetchone() == (True,)


def _empty(cursor: Cursor, constraints: list[bytes]) -> None:
    """Take the constraints off empty tables; TRUNCATE lets COPY write frozen rows, which need no vacuum later."""
    cursor.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(map(sql.Identifier, COLUMNS))))
    # Foreign keys, which come last, hold on to primary keys.
    for constraint in reversed(constraints):
        found = _CONSTRAINT.match(constraint)
        if found:
            table, name = (sql.Identifier(part.decode()) for part in found.groups())
            cursor.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(table, name))


def _fill(cursor: Cursor, plan: Plan) -> None:
    """COPY every table, and tell the speed of the movements alone."""
    # The rows' times carry no zone.
    cursor.execute("SET LOCAL timezone = 'UTC'")
    for table in COLUMNS:
        progress = Progress(table, plan.size.movements, "rows") if table == "lagerbewegung" else None
        begun = time.perf_counter()
        rows = _copy(cursor, table, blocks(plan, table), progress)
        seconds = time.perf_counter() - begun
        speed = f" in {seconds:.2f} s: {rows / seconds:,.0f} rows/s" if progress else ""
        _say(f"{table}: {rows:,} rows{speed}")
        cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", (table, rows))


def _constrain(cursor: Cursor, constraints: list[bytes]) -> None:
    """Add keys and checks, which is faster than keeping them up while rows come in."""
    progress, begun = Progress("constraints", len(constraints), "constraints"), time.perf_counter()
    for constraint in constraints:
        cursor.execute(constraint)
        progress.add(1)
    progress.end()
    _say(f"constraints: {time.perf_counter() - begun:.1f} s")


def _copy(cursor: Cursor, table: str, data: Iterator[bytes], progress: Progress | None) -> int:
    columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table]))
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FREEZE)").format(sql.Identifier(table), columns)
    with cursor.copy(statement) as copy:
        for block in data:
            copy.write(block)
            if progress:
                progress.add(block.count(b"\n"))
    if progress:
        progress.end()
    return cursor.rowcount


def _analyze(dsn: str) -> None:
    """Let the planner know the data; a failure leaves it to autovacuum."""
    with (
        contextlib.suppress(psycopg.Error),
        psycopg.connect(dsn, autocommit=True, application_name="erp generate") as connection,
    ):
        connection.execute(sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(map(sql.Identifier, COLUMNS))))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
