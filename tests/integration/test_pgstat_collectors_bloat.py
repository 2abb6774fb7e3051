"""The estimates of bloat against pgstattuple, which reads every page."""

import psycopg
import pytest

from tests.integration.pgstat_subject import Subject

# How far an estimate may be from the truth, as a share of the table or index.
TOLERANCE = 0.1
OFF = "WITH (autovacuum_enabled = off)"
TABLES = (
    f"CREATE TABLE schmal (id int, wert int) {OFF}",
    "INSERT INTO schmal SELECT n, n FROM generate_series(1, 40000) n",
    f"CREATE TABLE gemischt (id bigint, an bool, name text, am timestamptz, preis numeric(12, 2), fehlt text) {OFF}",
    "INSERT INTO gemischt SELECT n, n % 2 = 0, repeat('x', n % 60), now(), n / 7.0 FROM generate_series(1, 40000) n",
    f"CREATE TABLE breit (id int, text text) {OFF}",
    "INSERT INTO breit SELECT n, repeat('x', 1500) FROM generate_series(1, 4000) n",
    "CREATE TABLE luftig (id int, wert int) WITH (autovacuum_enabled = off, fillfactor = 60)",
    "INSERT INTO luftig SELECT n, n FROM generate_series(1, 40000) n",
    "CREATE TABLE voll (id int, name text)",
    "INSERT INTO voll SELECT n, 'Artikel ' || n FROM generate_series(1, 40000) n",
)
BLOATED = {"schmal": 0.75, "gemischt": 0.5, "breit": 0.5, "luftig": 0.0, "voll": 0.0}


@pytest.fixture
def measured(subject: Subject) -> Subject:
    """The database with pgstattuple; skipped where the server was built without it."""
    try:
        subject.do("CREATE EXTENSION pgstattuple")
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        pytest.skip(f"nothing to compare with: {error}")
    return subject


def test_tables(measured: Subject) -> None:
    """Every second or fourth row is left, which frees no page: space without live rows, less what fillfactor wants."""
    measured.do(
        *TABLES,
        "DELETE FROM schmal WHERE id % 4 > 0",
        *(f"DELETE FROM {name} WHERE id % 2 > 0" for name in ("gemischt", "breit")),  # noqa: S608
        *(f"VACUUM {name}" for name in BLOATED),
        "ANALYZE",
    )
    answer = measured.ask("bloat")
    ratios = measured.shown(answer, "pg_table_bloat_estimated_ratio", "relname")
    assert set(ratios) == set(BLOATED)
    for name, ratio in ratios.items():
        # A row takes its length, 4 bytes for its pointer and on average what fills it up to a multiple of 8.
        ((size, rows, length),) = measured.rows(f"SELECT table_len, tuple_count, tuple_len FROM pgstattuple('{name}')")  # noqa: S608
        needed = (length + 4 * rows) / (0.6 if name == "luftig" else 1)
        assert ratio == pytest.approx(max(0, 1 - needed / size), abs=TOLERANCE), name
        assert ratio == pytest.approx(BLOATED[name], abs=TOLERANCE), name
    sizes = measured.shown(answer, "pg_table_bloat_estimated_bytes", "relname")
    for name, size in sizes.items():
        whole = measured.value(f"SELECT pg_relation_size('{name}')")
        assert size == pytest.approx(ratios[name] * whole), name


def test_indexes(measured: Subject) -> None:
    """The density of the leaves, of which 90 % is full; merged entries, NULLs, expressions and two columns as well."""
    measured.do(
        f"CREATE TABLE artikel (id int, gruppe int, name text, fehlt int) {OFF}",
        "INSERT INTO artikel SELECT n, n % 50, 'Artikel ' || n, nullif(n % 3, 0) FROM generate_series(1, 60000) n",
        "CREATE UNIQUE INDEX eindeutig ON artikel (id)",
        "CREATE INDEX gleiche ON artikel (gruppe)",
        "CREATE INDEX text ON artikel (name)",
        "CREATE INDEX zwei ON artikel (name, id)",
        "CREATE INDEX ausdruck ON artikel (upper(name))",
        "CREATE INDEX loch ON artikel (fehlt)",
        "CREATE INDEX teil ON artikel (id) WHERE gruppe < 25",
        "DELETE FROM artikel WHERE id % 4 > 0",
        "VACUUM artikel",
        "CREATE INDEX neu ON artikel (id)",
        "ANALYZE artikel",
    )
    answer = measured.ask("bloat")
    ratios = measured.shown(answer, "pg_index_bloat_estimated_ratio", "indexrelname")
    assert set(ratios) == {"eindeutig", "gleiche", "text", "zwei", "ausdruck", "loch", "teil", "neu"}
    for name, ratio in ratios.items():
        density, empty, leaves = measured.rows(
            f"SELECT avg_leaf_density, deleted_pages + empty_pages, leaf_pages FROM pgstatindex('{name}')"  # noqa: S608
        )[0]
        truth = 1 - density / 90 * leaves / (leaves + empty)
        assert ratio == pytest.approx(max(0, truth), abs=TOLERANCE), name
    assert ratios["neu"] == pytest.approx(0, abs=0.03)
    assert ratios["eindeutig"] == pytest.approx(0.75, abs=0.05)


def test_without_statistics_there_is_no_estimate(subject: Subject) -> None:
    """A column that ANALYZE has not seen makes the widths unknown."""
    subject.do(*TABLES[:2], "VACUUM ANALYZE schmal", "ALTER TABLE schmal ADD COLUMN neu int")
    answer = subject.ask("bloat")
    assert not subject.shown(answer, "pg_table_bloat_estimated_bytes", "relname")
