"""The ERP's schema and data on a real server, checked by SQL that the generator has never seen."""

import subprocess
import sys
import threading
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine

from erp.generate import schema
from erp.models import TABLES, Base
from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.erp_process import ENVIRONMENT, ROOT, erp

UNTIL = "2026-11-24"


def generate(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the generator, by default for a small ERP until a fixed day."""
    return erp("generate", "--dsn", dsn, "--until", UNTIL, *arguments)


def rows(dsn: str, query: str) -> list[Any]:
    """Return a query's rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def counts(dsn: str) -> dict[str, int]:
    """Return how many rows each table has."""
    return {table: rows(dsn, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}  # noqa: S608


def described(dsn: str) -> list[Any]:
    """Return what a database's catalogue says of columns, constraints and indices."""
    return [
        *rows(
            dsn,
            """SELECT table_name, column_name, data_type, is_nullable, numeric_precision, numeric_scale,
                      is_identity, identity_generation, column_default
               FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2""",
        ),
        *rows(
            dsn,
            """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
               WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'f', 'c', 'u') ORDER BY 1, 2""",
        ),
        *rows(dsn, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"),
    ]


def test_the_models_are_the_schema(database: str, postgres: PostgresServer) -> None:
    """schema.sql here, the models there: the two databases' catalogues are equal; primary keys are the only indices."""
    psql = ["psql", "--quiet", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", str(ROOT / "erp" / "schema.sql")]
    subprocess.run(psql, check=True)
    parts = conninfo_to_dict(database)
    other = f"{parts['dbname']}_models"
    postgres.execute(f"CREATE DATABASE {other}")
    try:
        engine = create_engine(f"postgresql+psycopg://{parts['user']}@{parts['host']}:{parts['port']}/{other}")
        Base.metadata.create_all(engine)
        engine.dispose()
        found = described(database)
        assert found == described(postgres.dsn(other))
    finally:
        postgres.execute(f"DROP DATABASE {other} WITH (FORCE)")
    indices = rows(database, "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
    assert [name for (name,) in indices] == sorted(f"{table}_pkey" for table in TABLES)


@pytest.fixture(scope="module")
def small(postgres: PostgresServer) -> Any:
    """A small ERP, for reading."""
    postgres.execute("CREATE DATABASE erp_small")
    dsn = postgres.dsn("erp_small")
    made = generate(dsn)
    assert made.returncode == 0, made.stderr
    yield dsn, made.stdout
    postgres.execute("DROP DATABASE erp_small WITH (FORCE)")


def test_the_generator_tells_its_speed_and_the_next_step(small: tuple[str, str]) -> None:
    lines = small[1].splitlines()
    (speed,) = (line for line in lines if line.startswith("lagerbewegung: 100,000 rows in "))
    assert int(speed.rsplit(": ", 1)[1].removesuffix(" rows/s").replace(",", "")) > 0
    assert lines[-1] == "next: python3 -m erp serve"


def test_the_data_is_whole(small: tuple[str, str]) -> None:
    """As many movements as were asked for, under validated constraints that schema.sql names."""
    dsn = small[0]
    assert counts(dsn)["lagerbewegung"] == 100_000
    assert min(counts(dsn).values()) > 0
    _, constraints = schema()
    named = "SELECT conname FROM pg_constraint WHERE convalidated AND connamespace = 'public'::regnamespace"
    found = {name for (name,) in rows(dsn, f"{named} AND contype IN ('p', 'f', 'c')")}
    assert found == {one.split()[5].decode() for one in constraints}


IMPLAUSIBLE = {
    "movements before production": """
        SELECT 1 FROM lagerbewegung b JOIN charge c ON c.id = charge_id WHERE datum < produktionsdatum""",
    "movements after the best-before date": """
        SELECT 1 FROM lagerbewegung b JOIN charge c ON c.id = charge_id WHERE datum::date > mhd""",
    "another article than the charge's": """
        SELECT 1 FROM lagerbewegung b JOIN charge c ON c.id = charge_id WHERE b.artikel_id <> c.artikel_id""",
    "another article than the order's": """
        SELECT 1 FROM lagerbewegung b JOIN auftrag o ON o.id = auftrag_id WHERE b.artikel_id <> o.artikel_id""",
    "orders of another kind": """
        SELECT 1 FROM lagerbewegung b JOIN auftrag o ON o.id = auftrag_id WHERE (b.art, o.art) NOT IN
            (('Wareneingang', 'Einkauf'), ('Produktion', 'Fertigung'), ('Verkauf', 'Verkauf'))""",
    "wrong signs": """
        SELECT 1 FROM lagerbewegung
        WHERE art <> 'Umlagerung' AND (menge > 0) <> (art IN ('Wareneingang', 'Produktion'))""",
    "stock below zero": """
        SELECT 1 FROM (SELECT sum(menge) OVER (PARTITION BY charge_id, lager_id ORDER BY id) AS s FROM lagerbewegung) x
        WHERE s < 0""",
    "transfers that lose something": """
        SELECT 1 FROM lagerbewegung WHERE art = 'Umlagerung' GROUP BY charge_id HAVING sum(menge) <> 0""",
    "more sold than ordered": """
        SELECT 1 FROM lagerbewegung b JOIN auftrag o ON o.id = auftrag_id AND o.art = 'Verkauf'
        GROUP BY o.id, o.menge HAVING -sum(b.menge) > o.menge""",
    "bought without a supplier, or made with one": """
        SELECT 1 FROM auftrag WHERE (lieferant_id IS NULL) <> (art <> 'Einkauf')""",
    "pieces in parts": """
        SELECT 1 FROM lagerbewegung JOIN artikel a ON a.id = artikel_id
        WHERE einheit = 'Stück' AND menge <> trunc(menge)""",
    "ids against the order of time": """
        SELECT 1 FROM (SELECT datum < lag(datum) OVER (ORDER BY id) AS back FROM lagerbewegung) x WHERE back""",
    "movements on the day or after it": "SELECT 1 FROM lagerbewegung WHERE datum >= '2026-11-24 00:00+00'",
}


@pytest.mark.parametrize("what", IMPLAUSIBLE)
def test_nothing_is_implausible(small: tuple[str, str], what: str) -> None:
    assert rows(small[0], IMPLAUSIBLE[what]) == []


def test_the_data_is_as_uneven_as_life(small: tuple[str, str]) -> None:
    """Hot articles, quiet weekends, seasons; and the last 30 days are there."""
    dsn = small[0]
    shares = "SELECT count(*) / 100000.0 FROM lagerbewegung GROUP BY artikel_id ORDER BY 1 DESC"
    by_article = [float(share) for (share,) in rows(dsn, shares)]
    assert 0.05 < by_article[0] < 0.2
    assert 0.5 < sum(by_article[:100]) < 0.9
    weekend = "SELECT count(*) FROM lagerbewegung WHERE extract(isodow FROM datum AT TIME ZONE 'UTC') IN (6, 7)"
    assert 0 < rows(dsn, weekend)[0][0] < 8_000
    # Charges that were produced in July and in January: sauces are for the summer, spices for the winter.
    season = """SELECT count(*) FILTER (WHERE extract(month FROM produktionsdatum) IN (6, 7, 8))::float
                       / count(*) FILTER (WHERE extract(month FROM produktionsdatum) IN (12, 1, 2))
                FROM charge JOIN artikel a ON a.id = artikel_id WHERE kategorie = '{}'"""
    assert rows(dsn, season.format("Saucen"))[0][0] > 1.3 > rows(dsn, season.format("Gewürze"))[0][0]
    recent = "SELECT count(*) FROM lagerbewegung WHERE datum >= '2026-11-24'::date - 30"
    assert rows(dsn, recent)[0][0] > 3_000


def test_the_planner_knows_the_data_and_the_next_row_has_the_next_id(small: tuple[str, str]) -> None:
    dsn = small[0]
    analyzed = "SELECT count(*) FROM pg_stat_user_tables WHERE last_analyze IS NOT NULL"
    assert rows(dsn, analyzed) == [(len(TABLES),)]
    # FREEZE: nothing is left for vacuum to do at the first anti-wraparound run.
    assert rows(dsn, "SELECT relallvisible = relpages FROM pg_class WHERE relname = 'lagerbewegung'") == [(True,)]
    with psycopg.connect(dsn) as connection:
        insert = "INSERT INTO lager (name, ort, klima) VALUES ('x', 'y', 'z') RETURNING id"
        row = connection.execute(insert).fetchone()
        assert row == (counts(dsn)["lager"] + 1,)
        connection.rollback()


def test_rows_that_are_there_are_left_alone(small: tuple[str, str]) -> None:
    dsn = small[0]
    before = counts(dsn)
    refused = generate(dsn)
    assert refused.returncode == 1
    assert "has rows already: nothing was changed" in refused.stderr
    left = generate(dsn, "--if-empty", "--size", "medium")
    assert left.returncode == 0
    assert "nothing to do" in left.stdout
    assert counts(dsn) == before


def test_the_same_call_makes_the_same_database(small: tuple[str, str], database: str) -> None:
    """Also where the tables exist already, constraints and a migration's index included."""
    subprocess.run(["psql", "--quiet", "-d", database, "-f", str(ROOT / "erp" / "schema.sql")], check=True)
    rows_of = "SELECT md5(string_agg(t::text, ';' ORDER BY id)) FROM {} AS t"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE INDEX idx_lagerbewegung_charge_datum ON lagerbewegung (charge_id, datum)")
        connection.execute("INSERT INTO lager (name, ort, klima) VALUES ('x', 'y', 'z')")
        connection.execute("DELETE FROM lager")
    made = generate(database)
    assert made.returncode == 0, made.stderr
    for table in TABLES:
        query = rows_of.format(table)
        assert rows(database, query) == rows(small[0], query)
    constraints = "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1"
    assert rows(database, constraints) == rows(small[0], constraints)


def test_an_incomplete_schema_is_refused(database: str) -> None:
    rows_before = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE artikel (id int)")
    refused = generate(database)
    assert refused.returncode == 1
    assert "auftrag, charge, lager, lagerbewegung, lieferant is missing" in refused.stderr
    assert rows(database, rows_before) == [(1,)]


def test_a_run_that_dies_leaves_nothing_behind(database: str, postgres: PostgresServer) -> None:
    """Its session is ended in the middle of the movements; the next run starts from nothing."""
    command = [sys.executable, "-P", "-m", "erp", "generate", "--dsn", database, "--size", "medium"]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    copying = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY \"lagerbewegung\"%'"
    wait_until(lambda: (True,) in postgres.execute(copying), "the movements are being copied")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("error: the database: ")
    assert said.endswith("; nothing was changed\n")
    assert rows(database, "SELECT to_regclass('lagerbewegung')") == [(None,)]


def test_two_at_once_fill_it_once(database: str) -> None:
    found: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: found.append(generate(database, "--if-empty"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.returncode for one in found] == [0, 0]
    assert sum("nothing to do" in one.stdout for one in found) == 1
    assert counts(database)["lagerbewegung"] == 100_000


def test_an_unreachable_database_is_one_line() -> None:
    failed = generate("host=127.0.0.1 port=1 dbname=erp")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: the database: connection")
    assert "Traceback" not in failed.stderr


@pytest.mark.long
def test_two_million_movements_come_fast_enough(database: str) -> None:
    """At least 200,000 rows/s into lagerbewegung, COPY timed alone."""
    made = generate(database, "--size", "medium")
    assert made.returncode == 0, made.stderr
    (line,) = (line for line in made.stdout.splitlines() if line.startswith("lagerbewegung: 2,000,000 rows in "))
    assert int(line.rsplit(": ", 1)[1].removesuffix(" rows/s").replace(",", "")) >= 200_000
    assert counts(database)["lagerbewegung"] == 2_000_000
