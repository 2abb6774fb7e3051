"""The collectors tables and large_tables against the views, the files' sizes and counts by hand."""

import pytest

from tests.integration.pgstat_exporter_process import running, write_config
from tests.integration.pgstat_subject import Subject
from tests.integration.postgres_server import wait_until

COUNTERS = {
    "seq_scans_total": "seq_scan", "seq_rows_read_total": "seq_tup_read", "index_scans_total": "idx_scan",
    "index_rows_fetched_total": "idx_tup_fetch", "rows_inserted_total": "n_tup_ins", "rows_updated_total": "n_tup_upd",
    "rows_hot_updated_total": "n_tup_hot_upd", "rows_deleted_total": "n_tup_del", "live_rows": "n_live_tup",
    "dead_rows": "n_dead_tup", "rows_modified_since_analyze": "n_mod_since_analyze",
    "rows_inserted_since_vacuum": "n_ins_since_vacuum", "vacuums_total": "vacuum_count",
    "autovacuums_total": "autovacuum_count", "analyzes_total": "analyze_count",
    "autoanalyzes_total": "autoanalyze_count",
}  # fmt: skip
TIMES = {
    "last_vacuum_timestamp_seconds": "last_vacuum", "last_autovacuum_timestamp_seconds": "last_autovacuum",
    "last_analyze_timestamp_seconds": "last_analyze", "last_autoanalyze_timestamp_seconds": "last_autoanalyze",
}  # fmt: skip
SINCE_16 = {
    "last_seq_scan_timestamp_seconds": "extract(epoch FROM last_seq_scan)",
    "last_index_scan_timestamp_seconds": "extract(epoch FROM last_idx_scan)",
    "rows_newpage_updated_total": "n_tup_newpage_upd",
}
SINCE_18 = {
    "vacuum_seconds_total": "total_vacuum_time / 1000", "autovacuum_seconds_total": "total_autovacuum_time / 1000",
    "analyze_seconds_total": "total_analyze_time / 1000", "autoanalyze_seconds_total": "total_autoanalyze_time / 1000",
}  # fmt: skip
BLOCKS = {
    "heap_blocks_hit_total": "heap_blks_hit", "heap_blocks_read_total": "heap_blks_read",
    "index_blocks_hit_total": "idx_blks_hit", "index_blocks_read_total": "idx_blks_read",
    "toast_blocks_hit_total": "toast_blks_hit + tidx_blks_hit",
    "toast_blocks_read_total": "toast_blks_read + tidx_blks_read",
}  # fmt: skip
# Half-empty pages, so that every update finds room beside the old row; 600 rows have a text beside the table.
ARTICLES = """CREATE TABLE artikel (id int PRIMARY KEY, name text, wert int)
    WITH (autovacuum_enabled = off, fillfactor = 50)"""
FILLED = """INSERT INTO artikel SELECT n, CASE WHEN n <= 600 THEN (SELECT string_agg(md5((n * i)::text), '')
    FROM generate_series(1, 90) i) END, 0 FROM generate_series(1, 1000) n"""
CHANGES = (
    "UPDATE artikel SET wert = 1 WHERE id <= 100",
    "DELETE FROM artikel WHERE id > 990",
    "SET enable_seqscan = off",
    "SELECT count(name) FROM artikel WHERE id < 20",
)


def expressions(subject: Subject) -> dict[str, str]:
    """Return what each metric should be, as an expression over pg_stat_user_tables of this version."""
    found = COUNTERS | {name: f"extract(epoch FROM {column})" for name, column in TIMES.items()}
    return found | (SINCE_16 if subject.major >= 16 else {}) | (SINCE_18 if subject.major >= 18 else {})


def test_a_table(subject: Subject) -> None:
    """What is written is counted by hand; the rest is as the views have it, absent where they have NULL."""
    subject.do(ARTICLES, FILLED, "VACUUM artikel", "ANALYZE artikel", *CHANGES)
    answer = subject.ask("tables")
    labels = {"datname": subject.name, "schemaname": "public", "relname": "artikel"}
    by_hand = {
        "rows_inserted_total": 1000, "rows_updated_total": 100, "rows_hot_updated_total": 100, "rows_deleted_total": 10,
        "live_rows": 990, "rows_modified_since_analyze": 110, "rows_inserted_since_vacuum": 0, "vacuums_total": 1,
        "analyzes_total": 1,
    }  # fmt: skip
    for name, value in by_hand.items():
        assert answer.value(f"pg_stat_user_tables_{name}", **labels) == value, name
    for view, wanted in (("pg_stat_user_tables", expressions(subject)), ("pg_statio_user_tables", BLOCKS)):
        (row,) = subject.rows(f"SELECT {', '.join(wanted.values())} FROM {view}")  # noqa: S608
        for name, value in zip(wanted, row, strict=True):
            shown = answer.value(f"{view}_{name}", **labels)
            assert shown == (None if value is None else pytest.approx(float(value), abs=1e-5)), name
    absent = {*SINCE_16, *SINCE_18} - expressions(subject).keys()
    assert not [name for name in absent if f"pg_stat_user_tables_{name}" in answer.body]
    assert answer.value("pg_stat_user_tables_last_autovacuum_timestamp_seconds", **labels) is None
    assert answer.value("pg_tables_autovacuum_off", datname=subject.name) == 1


def test_sizes(subject: Subject) -> None:
    """As the files are, after VACUUM and ANALYZE; before them nothing is said rather than 0."""
    subject.do(ARTICLES, FILLED, "VACUUM artikel", "ANALYZE artikel", "CREATE TABLE neu AS SELECT 1 AS n")
    answer = subject.ask("tables")
    wanted = {
        "heap": "pg_relation_size('artikel')",
        "indexes": "pg_relation_size('artikel_pkey')",
        "toast": "pg_relation_size((SELECT reltoastrelid FROM pg_class WHERE relname = 'artikel'))",
    }
    for part, size in wanted.items():
        shown = subject.shown(answer, f"pg_table_{part}_bytes", "relname")
        assert shown == {"artikel": float(subject.value(f"SELECT {size}"))}, part
    assert subject.value(f"SELECT {wanted['toast']}") > 1_000_000
    kinds = subject.shown(answer, "pg_relations", "kind")
    schemas = {"catalog": "'pg_catalog'::regnamespace, 'information_schema'::regnamespace"}
    schemas["toast"] = "'pg_toast'::regnamespace"
    for kind, names in schemas.items():
        count = subject.value(f"SELECT count(*) FROM pg_class WHERE relnamespace IN ({names})")  # noqa: S608
        assert kinds.pop(kind) == count, kind
    assert {kind: count for kind, count in kinds.items() if count} == {"table": 2, "index": 1}
    sizes = subject.shown(answer, "pg_relations_bytes", "kind")
    assert sizes["table"] == subject.value("SELECT pg_relation_size('artikel')")


def test_when_autovacuum_is_due(subject: Subject) -> None:
    """Dead and changed rows over the server's thresholds (50 + 20 %, 50 + 10 %), or the table's own; by hand."""
    options = {
        "eins": {},
        "zwei": {"autovacuum_vacuum_threshold": 10, "autovacuum_vacuum_scale_factor": 0.1},
        "drei": {"autovacuum_analyze_threshold": 0, "autovacuum_analyze_scale_factor": 0.01},
    }
    due = {"eins": 110 / 250, "zwei": 110 / 110, "drei": 110 / 250}
    if subject.major >= 18:
        options["vier"], due["vier"] = {"autovacuum_vacuum_max_threshold": 20}, 110 / 20
    for name, own in options.items():
        settings = "".join(f", {key} = {value}" for key, value in own.items())
        subject.do(
            f"CREATE TABLE {name} (id int, wert int) WITH (autovacuum_enabled = off{settings})",
            f"INSERT INTO {name} SELECT n, 0 FROM generate_series(1, 1000) n",  # noqa: S608
            f"VACUUM ANALYZE {name}",
            f"UPDATE {name} SET wert = 1 WHERE id <= 100",  # noqa: S608
            f"DELETE FROM {name} WHERE id > 990",  # noqa: S608
        )
    answer = subject.ask("tables")
    assert subject.shown(answer, "pg_table_vacuum_due_ratio", "relname") == pytest.approx(due)
    changed = dict.fromkeys(options, 110 / 150) | {"drei": 110 / 10}
    assert subject.shown(answer, "pg_table_analyze_due_ratio", "relname") == pytest.approx(changed)


def test_partitions_are_one_table(subject: Subject) -> None:
    """Two levels of partitions give the one series of their root, which sums them; due is the most urgent."""
    off = "WITH (autovacuum_enabled = off)"
    subject.do(
        "CREATE TABLE messung (ort int, am int, wert int) PARTITION BY LIST (ort)",
        "CREATE INDEX messung_am ON messung (am)",
        f"CREATE TABLE messung_1 PARTITION OF messung FOR VALUES IN (1) {off}",
        "CREATE TABLE messung_2 PARTITION OF messung FOR VALUES IN (2) PARTITION BY RANGE (am)",
        f"CREATE TABLE messung_2a PARTITION OF messung_2 FOR VALUES FROM (0) TO (500) {off}",
        f"CREATE TABLE messung_2b PARTITION OF messung_2 FOR VALUES FROM (500) TO (1000) {off}",
        "INSERT INTO messung SELECT o, n, 0 FROM generate_series(1, 2) o, generate_series(0, 999) n",
        "VACUUM ANALYZE messung",
        "DELETE FROM messung WHERE ort = 2 AND am < 100",
        "SELECT count(*) FROM messung",
    )
    answer = subject.ask("tables", "indexes")
    assert {dict(labels)["relname"] for _, labels in answer if "relname" in dict(labels)} == {"messung"}
    leaves = "('messung_1', 'messung_2a', 'messung_2b')"
    wanted = {
        "pg_stat_user_tables_rows_inserted_total": 2000,
        "pg_stat_user_tables_dead_rows": 100,
        "pg_stat_user_tables_vacuums_total": 3,
        # Of 500 rows in one partition, not of 2,000 in all.
        "pg_table_vacuum_due_ratio": 100 / (50 + 0.2 * 500),
        "pg_stat_user_tables_seq_rows_read_total": subject.value(
            f"SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN {leaves}"  # noqa: S608
        ),
        "pg_table_heap_bytes": subject.value(
            f"SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relname IN {leaves}"  # noqa: S608
        ),
    }
    for name, value in wanted.items():
        assert subject.shown(answer, name, "relname") == {"messung": pytest.approx(float(value))}, name
    (size,) = subject.shown(answer, "pg_index_bytes", "relname", "indexrelname").items()
    files = "SELECT sum(pg_relation_size(indexrelid)) FROM pg_stat_user_indexes"
    assert size == (("messung", "messung_am"), float(subject.value(files)))


def test_counters_do_not_fall_with_a_partition(subject: Subject) -> None:
    """Prometheus would take that for a counter that began anew, and show all that the others ever counted as new."""
    subject.do(
        "CREATE TABLE ereignis (id int) PARTITION BY RANGE (id)",
        "CREATE INDEX ereignis_id ON ereignis (id)",
        "CREATE TABLE ereignis_alt PARTITION OF ereignis FOR VALUES FROM (0) TO (1000)",
        "CREATE TABLE ereignis_neu PARTITION OF ereignis FOR VALUES FROM (1000) TO (3000)",
        "INSERT INTO ereignis SELECT generate_series(0, 1999)",
        "SET enable_seqscan = off",
        "SELECT FROM ereignis WHERE id = 1",
        "SELECT FROM ereignis WHERE id = 1001",
    )
    often = {"tables": {"every": 1}, "indexes": {"every": 1}}
    with subject.role("pg_monitor") as user:
        dsn = subject.server.dsn(subject.name, user)
        config = write_config(subject.folder, dsn, databases={"include": [subject.name]}, collectors=often)
        with running(config) as exporter:

            def shown(name: str) -> float | None:
                return subject.shown(exporter.scrape(), name, "relname").get("ereignis")

            inserted, scans = "pg_stat_user_tables_rows_inserted_total", "pg_stat_user_indexes_scans_total"
            wait_until(lambda: shown(inserted) == 2000 and shown(scans) == 2, "all is counted")
            subject.do("DROP TABLE ereignis_alt")
            wait_until(lambda: shown("pg_stat_user_tables_live_rows") == 1000, "it is gone")
            assert shown(inserted) == 2000
            subject.do(
                "INSERT INTO ereignis VALUES (2000)",
                "SET enable_seqscan = off",
                "SELECT FROM ereignis WHERE id = 1002",
            )
            wait_until(lambda: shown(inserted) == 2001, "what came since is added")
            wait_until(lambda: shown(scans) == 3, "of indexes, too")


def test_large_tables_that_are_read_whole(subject: Subject) -> None:
    """From 10,000 rows on, and only where there was such a scan."""
    subject.do(
        "CREATE TABLE gross AS SELECT n FROM generate_series(1, 20000) n",
        "CREATE TABLE klein AS SELECT n FROM generate_series(1, 9999) n",
        "CREATE TABLE still AS SELECT n FROM generate_series(1, 20000) n",
        *["SELECT count(*) FROM gross"] * 3,
        "SELECT count(*) FROM klein",
    )
    answer = subject.ask("large_tables")
    assert subject.shown(answer, "pg_large_table_seq_scans_total", "relname") == {"gross": 3}
    assert subject.shown(answer, "pg_large_table_seq_rows_read_total", "relname") == {"gross": 60000}
    assert subject.shown(answer, "pg_large_table_rows", "relname") == {"gross": 20000}


def test_of_many_tables_the_first_are_shown(subject: Subject) -> None:
    """The largest, the busiest and the one with the most dead rows come before all others."""
    off = "WITH (autovacuum_enabled = off)"
    for number in range(9):
        subject.do(f"CREATE TABLE klein_{number} {off} AS SELECT 1 AS n", f"ANALYZE klein_{number}")
    subject.do(
        f"CREATE TABLE gross {off} AS SELECT n, repeat('x', 500) FROM generate_series(1, 5000) n",  # noqa: S608
        "ANALYZE gross",
        "DO 'BEGIN FOR i IN 1..20000 LOOP PERFORM FROM klein_7; END LOOP; END'",
        f"CREATE TABLE tot (id int) {off}",
        "INSERT INTO tot SELECT n FROM generate_series(1, 2000) n",
        "DELETE FROM tot",
    )
    answer = subject.ask("tables", top=3)
    assert set(subject.shown(answer, "pg_stat_user_tables_live_rows", "relname")) == {"gross", "klein_7", "tot"}
    assert answer.value("pg_scrape_collector_truncated", collector="tables", datname=subject.name) == 1
