"""What the collectors of single databases need: privileges, no locks, columns of newer servers."""

import contextlib
import re
import threading
from collections.abc import Iterator

import psycopg
import pytest

from pgstat_exporter import content
from tests.integration.conftest import wait_until
from tests.integration.pgstat_exporter_process import Answer
from tests.integration.pgstat_subject import Subject
from tests.integration.postgres_versions import replica_of

DATA = {"bloat", "default_partitions", "sequences"}
STATS = {"index_faults"}
COLLECTORS = {
    "indexes", "large_tables", "matviews", "partitions", "subscriptions", "table_xid_age", "tables", "xid_age",
    *DATA, *STATS,
}  # fmt: skip
# One of everything that can be locked.
OBJECTS = (
    "CREATE TABLE artikel (id int PRIMARY KEY, name text)",
    "INSERT INTO artikel SELECT n, 'Artikel ' || n FROM generate_series(1, 20000) n",
    "CREATE INDEX artikel_name ON artikel (name)",
    "CREATE MATERIALIZED VIEW namen AS SELECT name FROM artikel",
    "CREATE SEQUENCE voll MAXVALUE 10",
    "SELECT setval('voll', 10)",
    "CREATE SEQUENCE fast MAXVALUE 10",
    "SELECT setval('fast', 9)",
    "CREATE TABLE messung (am date) PARTITION BY RANGE (am)",
    "CREATE TABLE messung_1 PARTITION OF messung FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    "CREATE TABLE messung_rest PARTITION OF messung DEFAULT",
    "INSERT INTO messung VALUES ('2030-01-01')",
    "CREATE TABLE posten (am date) PARTITION BY RANGE (am)",
    "CREATE TABLE posten_rest PARTITION OF posten DEFAULT",
    "CREATE SCHEMA messwarte",
    "CREATE TABLE messwarte.mv_refresh_log "
    "(id int, view text, started_at timestamptz, seconds float8, rows int8, error text)",
    "INSERT INTO messwarte.mv_refresh_log VALUES (1, 'namen', now(), 1, 20000, NULL)",
    "SELECT count(*) FROM artikel",
    "ANALYZE",
)
# A column that a view has from a version on; each gates a metric.
COLUMNS = (
    ("pg_stat_user_tables", "n_tup_newpage_upd", 16),
    ("pg_stat_user_tables", "last_seq_scan", 16),
    ("pg_stat_user_tables", "last_idx_scan", 16),
    ("pg_stat_user_tables", "total_vacuum_time", 18),
    ("pg_stat_user_tables", "total_autovacuum_time", 18),
    ("pg_stat_user_tables", "total_analyze_time", 18),
    ("pg_stat_user_tables", "total_autoanalyze_time", 18),
    ("pg_stat_user_indexes", "last_idx_scan", 16),
    ("pg_stat_subscription_stats", "confl_insert_exists", 18),
    ("pg_stat_subscription_stats", "apply_error_count", 15),
    ("pg_stat_user_tables", "n_ins_since_vacuum", 15),
)


# What goes on with time, and what the collectors' own reading of rows adds to the counters of those tables.
_MOVES = re.compile("^pg_scrape|_age_|_freeze_|_wraparound_|_seq_|_heap_blocks_")


def skipped(answer: Answer) -> dict[str, str]:
    """Return why collectors were skipped."""
    return {
        dict(labels)["collector"]: dict(labels)["reason"]
        for name, labels in answer
        if name == "pg_scrape_collector_skipped"
    }


@pytest.mark.parametrize("granted", [(), ("pg_read_all_stats",), ("pg_monitor",), ("pg_monitor", "pg_read_all_data")])
def test_what_the_role_may_not_read_is_skipped(subject: Subject, granted: tuple[str, ...]) -> None:
    """Those without a role of their own need none; pg_monitor may read statistics and no data."""
    lacking = set(COLLECTORS) if not granted else set(DATA)
    if not granted:
        lacking = DATA | STATS
    elif "pg_read_all_data" in granted:
        lacking = set()
    with subject.role(*granted) as user:
        answer = subject.scrape(user, *COLLECTORS)
    assert skipped(answer) == dict.fromkeys(lacking, "privilege")
    assert answer.success() == {name: float(name not in lacking) for name in COLLECTORS}


def test_columns_begin_with_the_versions_that_are_declared(subject: Subject) -> None:
    """By the catalog of the server itself; the newest file is run on the newest server."""
    for view, column, since in COLUMNS:
        found = subject.value(
            "SELECT count(*) FROM information_schema.columns "  # noqa: S608
            f"WHERE table_name = '{view}' AND column_name = '{column}'"
        )
        assert found == (subject.major >= since), (view, column)
    for name in COLLECTORS:
        for query in content.load()[name].declaration.queries:
            assert all(metric.since <= 18 for metric in query.metrics)
            assert query.optional or query.choose(15, frozenset())


def told(subject: Subject, user: str) -> Answer:
    """Return what all collectors say, each of which must succeed without waiting for a lock."""
    answer = subject.scrape(user, *COLLECTORS, lock_timeout="20ms")
    assert answer.success() == dict.fromkeys(COLLECTORS, 1.0), answer.body
    return answer


def shown(subject: Subject, answer: Answer) -> dict[str, float]:
    """Return what is said of this database, without the exporter's own words and what time alone changes."""
    return {
        f"{name}{sorted(labels)}": value
        for (name, labels), value in answer.items()
        if ("datname", subject.name) in labels and not _MOVES.search(name)
    }


def test_nothing_waits_for_a_lock(subject: Subject) -> None:
    """Everything is held under ACCESS EXCLUSIVE, and all says what it said; but what has to be opened is left out."""
    subject.do(*OBJECTS)
    with subject.role("pg_monitor", "pg_read_all_data") as user, subject.session() as holder:
        before = told(subject, user)
        holder.execute("BEGIN")
        holder.execute("DROP SCHEMA public, messwarte CASCADE")
        free = subject.value(
            "SELECT count(*) FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'messwarte'::regnamespace) "
            "AND relkind <> 'c' AND oid NOT IN "
            "(SELECT relation FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation IS NOT NULL)"
        )
        assert free == 0
        with pytest.raises(psycopg.errors.LockNotAvailable):
            subject.do("SET lock_timeout = '20ms'", "SELECT pg_relation_size('artikel')")
        during = told(subject, user)
        holder.execute("ROLLBACK")
    opened = ("pg_sequence", "pg_partitions_default_rows", "pg_matview_refresh")
    kept = {name: value for name, value in shown(subject, before).items() if not name.startswith(opened)}
    assert {name: value for name, value in shown(subject, during).items() if not name.startswith(opened)} == kept
    assert len(kept) > 100
    names = {name.partition("[")[0] for name in shown(subject, before)}
    assert {"pg_sequence_used_ratio", "pg_partitions_default_rows", "pg_matview_refresh_timestamp_seconds"} < names
    assert during.value("pg_sequences_read", datname=subject.name) == 0
    assert not subject.shown(during, "pg_partitions_default_rows", "relname")
    assert not subject.shown(during, "pg_matview_refresh_timestamp_seconds", "relname")
    assert subject.shown(before, "pg_partitions_default_rows", "relname") == {"messung": 1, "posten": 0}


@contextlib.contextmanager
def waiting(subject: Subject, *pairs: tuple[str, str]) -> Iterator[None]:
    """Hold what the first of each pair takes while the second waits for it."""
    with contextlib.ExitStack() as stack:
        threads = []
        holders = [stack.enter_context(subject.session()) for _ in pairs]
        waiters = [stack.enter_context(subject.session()) for _ in pairs]
        for holder, waiter, (held, wanted) in zip(holders, waiters, pairs, strict=True):
            holder.execute("BEGIN")
            holder.execute(held.encode())
            waiter.execute("BEGIN")
            threads.append(threading.Thread(target=waiter.execute, args=(wanted.encode(),)))
            threads[-1].start()
        try:
            blocked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"
            wait_until(lambda: subject.value(blocked) == len(pairs), "all wait")
            yield
        finally:
            for holder in holders:
                holder.execute("ROLLBACK")
            for thread in threads:
                thread.join()
            for waiter in waiters:
                waiter.execute("ROLLBACK")


def test_a_lock_that_somebody_waits_for_is_as_good_as_held(subject: Subject) -> None:
    """Whoever comes after the waiting one would queue behind it; what is free beside it is still read."""
    subject.do(*OBJECTS)
    before = subject.ask("tables")
    pairs = (
        ("SELECT FROM messung_rest", "LOCK TABLE messung_rest IN ACCESS EXCLUSIVE MODE"),
        ("SELECT nextval('fast')", "DROP SEQUENCE fast"),
        ("SELECT FROM messwarte.mv_refresh_log", "LOCK TABLE messwarte.mv_refresh_log IN ACCESS EXCLUSIVE MODE"),
        ("SELECT FROM artikel", "LOCK TABLE artikel IN ACCESS EXCLUSIVE MODE"),
    )
    with subject.role("pg_monitor", "pg_read_all_data") as user, waiting(subject, *pairs):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            subject.do("SET lock_timeout = '20ms'", "SELECT pg_relation_size('artikel')")
        during = told(subject, user)
    assert subject.shown(during, "pg_partitions_default_rows", "relname") == {"posten": 0}
    assert subject.shown(during, "pg_sequence_used_ratio", "relname") == {"voll": 1}
    assert not subject.shown(during, "pg_matview_refresh_failed", "relname")
    size = subject.shown(during, "pg_table_heap_bytes", "relname")
    assert size == subject.shown(before, "pg_table_heap_bytes", "relname")


def test_a_default_partition_is_read_while_its_parent_is_held(subject: Subject) -> None:
    """Somebody who attaches partitions holds the parent; a count of the child does not wait for that."""
    subject.do(*OBJECTS)
    with subject.session() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE ONLY messung IN ACCESS EXCLUSIVE MODE")
        during = subject.ask("default_partitions", "partitions", lock_timeout="20ms")
        holder.execute("ROLLBACK")
    assert subject.shown(during, "pg_partitions_default_rows", "relname") == {"messung": 1, "posten": 0}
    assert subject.shown(during, "pg_partitions", "relname") == {"messung": 2, "posten": 1}


def test_a_replica_answers_too(subject: Subject) -> None:
    """What is in the tables is there, an unlogged sequence is left out; counters are the replica's own."""
    subject.do(*OBJECTS, "CREATE UNLOGGED SEQUENCE fluechtig MAXVALUE 10", "SELECT setval('fluechtig', 10)")
    with subject.role("pg_monitor", "pg_read_all_data") as user, replica_of(subject.server) as server:
        replica = Subject(server, subject.name, subject.folder)
        answer = told(replica, user)
    assert replica.shown(answer, "pg_sequence_used_ratio", "relname") == {"voll": 1, "fast": 0.9}
    assert replica.shown(answer, "pg_partitions_default_rows", "relname") == {"messung": 1, "posten": 0}
    inserted = replica.shown(answer, "pg_stat_user_tables_rows_inserted_total", "relname")
    assert inserted["artikel"] == 0
