"""The collectors indexes and index_faults against the views, and faults made by hand."""

import threading

import psycopg
import pytest

from tests.integration.conftest import wait_until
from tests.integration.pgstat_subject import Subject

COUNTERS = {
    "pg_stat_user_indexes_scans_total": "idx_scan",
    "pg_stat_user_indexes_entries_read_total": "idx_tup_read",
    "pg_stat_user_indexes_rows_fetched_total": "idx_tup_fetch",
    "pg_statio_user_indexes_blocks_hit_total": "idx_blks_hit",
    "pg_statio_user_indexes_blocks_read_total": "idx_blks_read",
    "pg_index_bytes": "pg_relation_size(indexrelid)",
}
LAST_SCAN = "pg_stat_user_indexes_last_scan_timestamp_seconds"
ARTICLES = (
    "CREATE TABLE artikel (id int PRIMARY KEY, name text, wert int) WITH (autovacuum_enabled = off)",
    "INSERT INTO artikel SELECT n, 'Artikel ' || n % 500, n FROM generate_series(1, 5000) n",
)


def test_use_and_size(subject: Subject) -> None:
    """As the two views have it, and the files; the last scan only from 16 on, and absent without one."""
    subject.do(
        *ARTICLES,
        "CREATE INDEX artikel_name ON artikel (name)",
        "ANALYZE artikel",
        "SET enable_seqscan = off",
        *["SELECT name FROM artikel WHERE id = 7"] * 3,
    )
    answer = subject.ask("indexes")
    wanted = dict(COUNTERS)
    if subject.major >= 16:
        wanted[LAST_SCAN] = "extract(epoch FROM last_idx_scan)"
    rows = subject.rows(
        f"SELECT indexrelname, {', '.join(wanted.values())} "  # noqa: S608
        "FROM pg_stat_user_indexes JOIN pg_statio_user_indexes USING (indexrelid, indexrelname)"
    )
    for name, values in zip(wanted, zip(*[row[1:] for row in rows], strict=True), strict=True):
        shown = {row[0]: float(value) for row, value in zip(rows, values, strict=True) if value is not None}
        assert subject.shown(answer, name, "indexrelname") == pytest.approx(shown, abs=1e-5), name
    assert subject.shown(answer, "pg_stat_user_indexes_scans_total", "indexrelname") == {
        "artikel_pkey": 3,
        "artikel_name": 0,
    }
    assert set(subject.shown(answer, LAST_SCAN, "indexrelname")) == ({"artikel_pkey"} if subject.major >= 16 else set())


def test_faults(subject: Subject) -> None:
    """What was broken, doubled or never used by hand is found, what constraints need is not, and sums are whole."""
    subject.do(
        *ARTICLES,
        "CREATE INDEX benutzt ON artikel (wert)",
        "CREATE INDEX gleich ON artikel (wert)",
        "CREATE INDEX anders ON artikel (wert DESC)",
        "CREATE INDEX wie_pkey ON artikel (id)",
        "CREATE INDEX klein ON artikel (lower(name)) WHERE id > 4000",
        "CREATE INDEX  klein_zwei ON artikel (lower( name ))   WHERE id > 4000",
        "CREATE UNIQUE INDEX eindeutig ON artikel (id, name)",
        "ANALYZE artikel",
        "SET enable_seqscan = off",
        "SELECT FROM artikel WHERE id = 7",
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        subject.do("CREATE UNIQUE INDEX CONCURRENTLY kaputt ON artikel (name)")
    # Which of several that fit the planner takes is its own affair.
    subject.do("BEGIN", "DROP INDEX gleich, anders", "SET LOCAL enable_seqscan = off",
        "SELECT FROM artikel WHERE wert = 3", "ROLLBACK")  # fmt: skip
    faults = {
        "duplicate": {"gleich", "wie_pkey", "klein_zwei"},
        "unused": {"gleich", "anders", "wie_pkey", "klein", "klein_zwei"},
        "invalid": {"kaputt"},
    }
    answer = subject.ask("index_faults")
    found = subject.shown(answer, "pg_faulty_index_bytes", "fault", "relname", "indexrelname")
    assert set(found) == {(fault, "artikel", name) for fault, names in faults.items() for name in names}
    for (fault, _, name), size in found.items():
        # A failed build may leave pages that nobody counted.
        if fault != "invalid":
            assert size == subject.value(f"SELECT pg_relation_size('{name}')"), name
    assert subject.shown(answer, "pg_faulty_indexes", "fault") == {fault: len(names) for fault, names in faults.items()}
    sums = {fault: sum(size for (one, *_), size in found.items() if one == fault) for fault in faults}
    assert subject.shown(answer, "pg_faulty_indexes_bytes", "fault") == sums


def test_without_faults_the_sums_are_zero(subject: Subject) -> None:
    """0 of each, and nothing in detail."""
    subject.do(*ARTICLES)
    answer = subject.ask("index_faults")
    zero = {"unused": 0.0, "duplicate": 0.0, "invalid": 0.0}
    assert subject.shown(answer, "pg_faulty_indexes", "fault") == zero
    assert subject.shown(answer, "pg_faulty_indexes_bytes", "fault") == zero
    assert not subject.shown(answer, "pg_faulty_index_bytes", "indexrelname")


@pytest.mark.parametrize(
    ("build", "invalid"),
    # With the TOAST table's own, which is built last.
    [("CREATE INDEX CONCURRENTLY neu ON artikel (wert)", 1), ("REINDEX TABLE CONCURRENTLY artikel", 3)],
)
def test_an_index_that_is_being_built_is_no_fault(subject: Subject, build: str, invalid: int) -> None:
    """It is invalid until its build ends, which an older transaction keeps waiting here; leftovers elsewhere are."""
    subject.do(*ARTICLES, "CREATE INDEX artikel_name ON artikel (name)", "CREATE TABLE andere AS SELECT 1 AS n, 2 AS m",
        "INSERT INTO andere VALUES (1, 2)")  # fmt: skip
    with pytest.raises(psycopg.errors.UniqueViolation):
        subject.do("CREATE UNIQUE INDEX CONCURRENTLY kaputt ON andere (n)")
    with subject.session() as older, subject.session() as builder:
        older.execute("BEGIN")
        older.execute("UPDATE artikel SET wert = 0 WHERE id = 1")
        building = threading.Thread(target=builder.execute, args=(build.encode(),))
        building.start()
        try:
            there = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
            wait_until(lambda: subject.value(there) == invalid + 1, "what is built is there and not valid yet")
            answer = subject.ask("index_faults")
        finally:
            older.execute("ROLLBACK")
            building.join()
    assert subject.shown(answer, "pg_faulty_indexes", "fault")["invalid"] == 1
    assert ("invalid", "kaputt") in subject.shown(answer, "pg_faulty_index_bytes", "fault", "indexrelname")


def test_indexes_of_partitions_are_one(subject: Subject) -> None:
    """Unused is what was scanned in no partition; an index that only a partition has keeps its own name."""
    subject.do(
        "CREATE TABLE messung (am int, wert int, ort int) PARTITION BY RANGE (am)",
        "CREATE INDEX messung_am ON messung (am)",
        "CREATE INDEX messung_ort ON messung (ort)",
        "CREATE TABLE messung_a PARTITION OF messung FOR VALUES FROM (0) TO (1000)",
        "CREATE TABLE messung_b PARTITION OF messung FOR VALUES FROM (1000) TO (2000)",
        "CREATE INDEX nur_b ON messung_b (wert)",
        "INSERT INTO messung SELECT n, n, n FROM generate_series(0, 1999) n",
        "ANALYZE messung",
        "SET enable_seqscan = off",
        "SELECT wert FROM messung WHERE am = 5",
    )
    answer = subject.ask("indexes", "index_faults")
    scans = subject.shown(answer, "pg_stat_user_indexes_scans_total", "relname", "indexrelname")
    assert scans == {("messung", "messung_am"): 1, ("messung", "messung_ort"): 0, ("messung", "nur_b"): 0}
    unused = subject.shown(answer, "pg_faulty_index_bytes", "indexrelname")
    files = "SELECT sum(pg_relation_size(indexrelid)) FROM pg_stat_user_indexes WHERE indexrelname ~ '_ort_|nur_b'"
    assert set(unused) == {"messung_ort", "nur_b"}
    assert sum(unused.values()) == float(subject.value(files))
