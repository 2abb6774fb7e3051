"""Statement texts: nothing that could be a person's data or a secret gets through."""

import pytest

from pgstat_exporter.texts import name_of, scrub


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT $1 FROM artikel WHERE id = $2", "SELECT $1 FROM artikel WHERE id = $2"),
        ("select *\n  from  t1\twhere a=1", "select * from t1 where a=?"),
        ("SELECT 'geheim', E'ge\\\\heim', 'ge''heim', $$geheim$$, $a$geheim$a$, x'1F'", "SELECT ?, ?, ?, ?, ?, ?"),
        ('SELECT "geheim 1" FROM "T""1"', 'SELECT "geheim 1" FROM "T""1"'),
        ("/* user=geheim */ SELECT 1 -- geheim\n", "SELECT ?"),
        ("/* a /* b */ geheim */ SELECT 1 /* geheim", "SELECT ?"),
        ("SELECT 1.5, .5, 1e-9, 0x1F, 1_000, col1, $12", "SELECT ?, ?, ?, ?, ?, col1, $12"),
        ("(SELECT 1) UNION (SELECT 2)", "(SELECT ?) UNION (SELECT ?)"),
        ("WITH a AS (SELECT 'geheim", "WITH a AS (SELECT ?"),
        ("INSERT INTO t VALUES ($1 /*, $2, ... */)", "INSERT INTO t VALUES ($1 )"),
        ("MERGE INTO t USING s ON t.id = s.id", "MERGE INTO t USING s ON t.id = s.id"),
        ("SELECT a::text, b->>'geheim', c-1", "SELECT a::text, b->>?, c-?"),
    ],
)
def test_data_statements_lose_literals_and_comments(text: str, shown: str) -> None:
    """The server keeps raw texts in rare cases and comments always, so we clean them once more."""
    assert scrub(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "ALTER ROLE erp PASSWORD 'geheim'", "CREATE USER x PASSWORD 'geheim'", "COPY t FROM PROGRAM 'geheim'",
        "SET x = 'geheim'", "EXPLAIN SELECT 1", "/* SELECT */ DO $$ geheim $$", "<insufficient privilege>", "",
        "SELECTION",
        "SELECT 'it\\'s geheim'",
        "-- SELECT\nCALL geheim()", "PREPARE q AS SELECT 'geheim'",
    ],
)  # fmt: skip
def test_other_statements_are_not_shown(text: str) -> None:
    """Utility statements can hold passwords."""
    assert scrub(text) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/* name: artikel_suche */ SELECT 1", "artikel_suche"),
        ("  /*name:lager.bestand*/\nSELECT 1", "lager.bestand"),
        ("SELECT 1 /* name: late */", ""),
        ("/* name: */ SELECT 1", ""),
        ("/* name: two words */ SELECT 1", ""),
        ("/* user=geheim */ SELECT 1", ""),
        ("/* name: " + "x" * 101 + " */ SELECT 1", ""),
    ],
)
def test_names_are_those_of_the_leading_comment(text: str, name: str) -> None:
    """The label query_name is that of erp_metrics; what is no name is not shown."""
    assert name_of(text) == name


def test_texts_are_cut() -> None:
    """A label's length is bounded."""
    shown = scrub("SELECT " + ", ".join(f"column_{n}" for n in range(1000)), length=100)
    assert shown is not None
    assert (len(shown), shown[-1]) == (100, "…")
