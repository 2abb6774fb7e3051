"""The collectors partitions and default_partitions: bounds and rows put there by hand."""

from datetime import datetime
from itertools import pairwise

import pytest

from tests.integration.pgstat_subject import Subject


def ranges(table: str, *bounds: str) -> list[str]:
    """Return statements that make a partition between each bound and the next."""
    return [
        f"CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES FROM ({low}) TO ({high})"
        for number, (low, high) in enumerate(pairwise(bounds))
    ]


def epoch(moment: str) -> float:
    """Return the Unix time of a moment."""
    return datetime.fromisoformat(moment).timestamp()


def test_how_far_time_ranges_reach(subject: Subject) -> None:
    """In the database's time zone; MAXVALUE has no end, and of partitions within partitions the first to end counts."""
    subject.do(f"ALTER DATABASE {subject.name} SET timezone = 'Europe/Berlin'")
    subject.do(
        "CREATE TABLE taeglich (am date, wert int) PARTITION BY RANGE (am)",
        *ranges("taeglich", "'2026-07-01'", "'2026-07-02'", "'2026-07-03'", "'2026-07-04'"),
        "INSERT INTO taeglich VALUES ('2026-07-02', 1)",
        "CREATE TABLE monatlich (ab timestamptz, nr int) PARTITION BY RANGE (ab, nr)",
        *ranges("monatlich", "'2026-11-01 00:00+00', 1", "'2026-12-01 00:00+00', 1", "'2027-01-01 00:00+00', 1"),
        "CREATE TABLE offen (am timestamp) PARTITION BY RANGE (am)",
        *ranges("offen", "MINVALUE", "'2026-01-01'", "MAXVALUE"),
        "CREATE TABLE leer (am date) PARTITION BY RANGE (am)",
        "CREATE TABLE je_ort (ort text, am date) PARTITION BY LIST (ort)",
        "CREATE TABLE je_ort_a PARTITION OF je_ort FOR VALUES IN ('a''b, (c)') PARTITION BY RANGE (am)",
        "CREATE TABLE je_ort_b PARTITION OF je_ort FOR VALUES IN ('b') PARTITION BY RANGE (am)",
        *ranges("je_ort_a", "'2026-01-01'", "'2028-01-01'"),
        *ranges("je_ort_b", "'2026-01-01'", "'2027-01-01'"),
    )
    answer = subject.ask("partitions")
    # Midnight in Berlin: two hours before UTC's in July, one in winter.
    assert subject.shown(answer, "pg_partitions_end_timestamp_seconds", "relname") == {
        "taeglich": epoch("2026-07-03T22:00+00:00"),
        "monatlich": epoch("2027-01-01T00:00+00:00"),
        "offen": float("inf"),
        "je_ort": epoch("2026-12-31T23:00+00:00"),
    }
    widths = subject.shown(answer, "pg_partitions_last_width_seconds", "relname")
    days = {"taeglich": 1, "monatlich": 31, "je_ort": 365}
    assert {name: width / 86400 for name, width in widths.items()} == days
    partitions = {"taeglich": 3, "monatlich": 2, "offen": 2, "je_ort": 2}
    assert subject.shown(answer, "pg_partitions", "relname") == partitions
    ahead = subject.shown(answer, "pg_partitions_ahead", "relname")
    assert ahead == {"taeglich": 1, "monatlich": 2, "offen": 2, "je_ort": 1}


def test_how_far_number_ranges_reach(subject: Subject) -> None:
    """The bound as it is, negative ones too, and what stands after the last partition with rows."""
    subject.do(
        "CREATE TABLE belege (nr bigint) PARTITION BY RANGE (nr)",
        *ranges("belege", "-100", "0", "1000", "2000", "3000"),
        "INSERT INTO belege VALUES (-5), (500)",
        "CREATE TABLE voll (nr numeric) PARTITION BY RANGE (nr)",
        *ranges("voll", "-20.5", "-10.5"),
        "INSERT INTO voll VALUES (-12)",
        "CREATE TABLE worte (wort text) PARTITION BY RANGE (wort)",
        *ranges("worte", "'a'", "'k'"),
    )
    answer = subject.ask("partitions")
    assert subject.shown(answer, "pg_partitions_end_value", "relname") == {"belege": 3000, "voll": -10.5}
    assert subject.shown(answer, "pg_partitions_ahead", "relname") == {"belege": 2, "voll": 0}
    assert not subject.shown(answer, "pg_partitions_end_timestamp_seconds", "relname")
    assert subject.shown(answer, "pg_partitions", "relname") == {"belege": 4, "voll": 1, "worte": 1}


def test_bounds_that_no_sample_can_hold(subject: Subject) -> None:
    """They count as infinite, and what stands beside them is there."""
    subject.do(f"ALTER DATABASE {subject.name} SET timezone = 'Europe/Berlin'")
    subject.do(
        "CREATE TABLE riesig (nr numeric) PARTITION BY RANGE (nr)",
        *ranges("riesig", "-1e400", "1e-400", "5", "1e400"),
        "CREATE TABLE gross (nr numeric) PARTITION BY RANGE (nr)",
        *ranges("gross", "-1e308", "1e308"),
        "CREATE TABLE negativ (nr numeric) PARTITION BY RANGE (nr)",
        *ranges("negativ", "-2e400", "-1e400"),
        "CREATE TABLE winzig (nr numeric) PARTITION BY RANGE (nr)",
        *ranges("winzig", "-1", "1e-400"),
        # Dates reach further than moments do.
        "CREATE TABLE weit (am date) PARTITION BY RANGE (am)",
        *ranges("weit", "'4714-11-24 BC'", "'2026-01-01'", "'5874897-12-31'"),
        "CREATE TABLE alt (am date) PARTITION BY RANGE (am)",
        *ranges("alt", "'4714-11-24 BC'", "'2026-01-02'"),
    )
    answer = subject.ask("partitions")
    ends = {"riesig": float("inf"), "gross": 1e308, "negativ": float("-inf"), "winzig": 0}
    assert subject.shown(answer, "pg_partitions_end_value", "relname") == ends
    ends = {"weit": float("inf"), "alt": epoch("2026-01-01T23:00+00:00")}
    assert subject.shown(answer, "pg_partitions_end_timestamp_seconds", "relname") == ends
    assert subject.shown(answer, "pg_partitions_ahead", "relname")["riesig"] == 3


def test_rows_in_default_partitions(subject: Subject) -> None:
    """Counted to 10,000 and summed over the tree; 0 where nothing went astray."""
    subject.do(
        "CREATE TABLE messung (am int) PARTITION BY RANGE (am)",
        *ranges("messung", "0", "10"),
        'CREATE TABLE "Rest; DROP" PARTITION OF messung DEFAULT',
        "INSERT INTO messung SELECT generate_series(1, 12)",
        "CREATE TABLE viel (am int) PARTITION BY RANGE (am)",
        "CREATE TABLE viel_rest PARTITION OF viel DEFAULT",
        "INSERT INTO viel SELECT generate_series(1, 12000)",
        "CREATE TABLE tief (ort int, am int) PARTITION BY LIST (ort)",
        "CREATE TABLE tief_1 PARTITION OF tief FOR VALUES IN (1) PARTITION BY RANGE (am)",
        "CREATE TABLE tief_1_rest PARTITION OF tief_1 DEFAULT",
        "CREATE TABLE tief_rest PARTITION OF tief DEFAULT",
        "INSERT INTO tief VALUES (1, 1), (1, 2), (2, 1)",
        # Whose DEFAULT partition is partitioned again, and has one itself.
        "CREATE TABLE weiter (ort int, am int) PARTITION BY LIST (ort)",
        "CREATE TABLE weiter_rest PARTITION OF weiter DEFAULT PARTITION BY RANGE (am)",
        *ranges("weiter_rest", "0", "10"),
        "CREATE TABLE weiter_rest_rest PARTITION OF weiter_rest DEFAULT",
        "INSERT INTO weiter VALUES (1, 1), (2, 2), (3, 99)",
        # Nobody waits for another server.
        "CREATE EXTENSION file_fdw",
        "CREATE SERVER dateien FOREIGN DATA WRAPPER file_fdw",
        "CREATE TABLE fern (am int) PARTITION BY RANGE (am)",
        "CREATE FOREIGN TABLE fern_rest PARTITION OF fern DEFAULT SERVER dateien OPTIONS (filename '/does/not/exist')",
        "CREATE TABLE heil (am int) PARTITION BY RANGE (am)",
        "CREATE TABLE heil_rest PARTITION OF heil DEFAULT",
        "CREATE TABLE ohne (am int) PARTITION BY RANGE (am)",
        # Row security would hide rows, and a smaller number would be wrong.
        "CREATE TABLE geheim (am int) PARTITION BY RANGE (am)",
        "CREATE TABLE geheim_rest PARTITION OF geheim DEFAULT",
        "ALTER TABLE geheim_rest ENABLE ROW LEVEL SECURITY",
        "INSERT INTO geheim VALUES (1)",
    )
    answer = subject.ask("default_partitions", "partitions")
    rows = {"messung": 3, "viel": 10_000, "tief": 3, "weiter": 3, "heil": 0}
    assert subject.shown(answer, "pg_partitions_default_rows", "relname") == rows
    assert subject.value('SELECT count(*) FROM "Rest; DROP"') == rows["messung"]
    defaults = {"messung": 1, "viel": 1, "tief": 2, "weiter": 2, "fern": 1, "heil": 1, "geheim": 1}
    assert subject.shown(answer, "pg_partitions_default", "relname") == pytest.approx(defaults)
