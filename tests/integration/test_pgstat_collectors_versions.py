"""What each version has, and the least role: the columns that the variants count on, and what a role alone can see."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pgstat_exporter import content
from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_collectors import major_of, reading, shows
from tests.integration.pgstat_exporter_process import Answer
from tests.integration.pgstat_subject import Subject

OLDEST, NEWEST = 15, 18
FAST = (
    "activity", "archiver", "checkpointer", "database", "database_size", "files", "horizon", "io", "locks", "progress",
    "recovery", "replication", "server", "settings", "slots", "slru", "statements", "wal",
)  # fmt: skip
# The versions from which on, and until which, a view has columns; all others are the same from 15 to 18.
COLUMNS = [
    ("pg_stat_io", "reads hits evictions reuses fsyncs fsync_time", 16, NEWEST),
    ("pg_stat_io", "op_bytes", 16, 17),
    ("pg_stat_io", "read_bytes write_bytes extend_bytes", 18, NEWEST),
    ("pg_stat_bgwriter", "buffers_clean maxwritten_clean buffers_alloc stats_reset", 15, NEWEST),
    ("pg_stat_bgwriter", "checkpoints_timed checkpoints_req buffers_checkpoint buffers_backend", 15, 16),
    ("pg_stat_checkpointer", "num_timed num_requested restartpoints_done write_time buffers_written", 17, NEWEST),
    ("pg_stat_checkpointer", "num_done slru_written", 18, NEWEST),
    ("pg_stat_wal", "wal_records wal_fpi wal_bytes wal_buffers_full", 15, NEWEST),
    ("pg_stat_wal", "wal_write wal_sync wal_write_time wal_sync_time", 15, 17),
    ("pg_stat_database", "session_time sessions_abandoned sessions_fatal sessions_killed", 15, NEWEST),
    ("pg_stat_database", "parallel_workers_to_launch parallel_workers_launched", 18, NEWEST),
    ("pg_stat_database_conflicts", "confl_active_logicalslot", 16, NEWEST),
    ("pg_replication_slots", "wal_status safe_wal_size two_phase", 15, NEWEST),
    ("pg_replication_slots", "conflicting", 16, NEWEST),
    ("pg_replication_slots", "inactive_since invalidation_reason failover synced", 17, NEWEST),
    ("pg_stat_replication_slots", "spill_txns spill_bytes total_txns", 15, NEWEST),
    ("pg_stat_recovery_prefetch", "prefetch hit skip_fpw", 15, NEWEST),
    ("pg_stat_progress_vacuum", "max_dead_tuples num_dead_tuples", 15, 16),
    (
        "pg_stat_progress_vacuum",
        "max_dead_tuple_bytes dead_tuple_bytes num_dead_item_ids indexes_processed",
        17,
        NEWEST,
    ),
    ("pg_stat_progress_vacuum", "delay_time", 18, NEWEST),
    ("pg_stat_progress_analyze", "delay_time", 18, NEWEST),
    ("pg_stat_progress_copy", "bytes_processed tuples_processed", 15, NEWEST),
    ("pg_locks", "waitstart", 15, NEWEST),
    ("pg_stat_activity", "query_id", 15, NEWEST),
    ("pg_stat_statements", "toplevel wal_bytes jit_functions temp_blk_read_time", 15, NEWEST),
    ("pg_stat_statements", "blk_read_time", 15, 16),
    ("pg_stat_statements", "shared_blk_read_time local_blk_read_time stats_since minmax_stats_since", 17, NEWEST),
    ("pg_stat_statements", "wal_buffers_full parallel_workers_launched", 18, NEWEST),
    ("pg_stat_statements_info", "dealloc stats_reset", 15, NEWEST),
]


def columns_of(server: PostgresServer) -> frozenset[str]:
    """Return `view.column` of all views, pg_stat_statements among them."""
    server.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    rows = server.execute("SELECT attrelid::regclass::text || '.' || attname FROM pg_attribute WHERE attnum > 0")
    return frozenset(name for (name,) in rows)


def test_columns_are_there_exactly_on_the_versions_that_the_variants_count_on(any_postgres: PostgresServer) -> None:
    """By the catalog of a real server of each version."""
    columns, major = columns_of(any_postgres), major_of(any_postgres)
    wrong = [
        f"{view}.{name}"
        for view, names, since, until in COLUMNS
        for name in names.split()
        if (f"{view}.{name}" in columns) != (since <= major <= until)
    ]
    assert not wrong


def test_renamed_and_new_kinds(any_postgres: PostgresServer) -> None:
    """SLRU caches have new names from 17 on; I/O of WAL is an object of its own from 18 on."""
    names = {name for (name,) in any_postgres.execute("SELECT name FROM pg_stat_slru")}
    assert ("Subtrans" in names) == (major_of(any_postgres) < 17)
    assert ("subtransaction" in names) == (major_of(any_postgres) >= 17)
    if major_of(any_postgres) >= 16:
        objects = {name for (name,) in any_postgres.execute("SELECT DISTINCT object FROM pg_stat_io")}
        assert ("wal" in objects) == (major_of(any_postgres) >= 18)


def test_every_variant_that_fits_returns_what_is_declared(any_postgres: PostgresServer) -> None:
    """All columns of the metrics that this version has, and none but those of other versions."""
    columns, major = columns_of(any_postgres), major_of(any_postgres)
    with psycopg.connect(any_postgres.dsn(), autocommit=True) as connection:
        for name in FAST:
            collector = content.load()[name]
            for query in collector.declaration.queries:
                variant = query.choose(major, columns)
                if variant is None:
                    assert (name, major) == ("io", 15)
                    continue
                cursor = connection.execute(collector.sql[variant.file].encode())
                found = {one.name for one in cursor.description or ()}
                assert query.wanted(query.measured(major)) <= found <= query.wanted(query.metrics), variant.file


@contextlib.contextmanager
def authenticating(server: PostgresServer) -> Iterator[None]:
    """A session that is asked for a password and gives none."""
    rules = server.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all test_late all password\n{before}")
    said = b"user\0test_late\0database\0postgres\0\0"
    try:
        server.execute("SELECT pg_reload_conf()")
        with contextlib.ExitStack() as stack:

            def asked() -> bool:
                one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                one.sendall(struct.pack("!ii", len(said) + 8, 3 << 16) + said)
                return one.recv(1) == b"R"

            wait_until(asked, "the server asks for the password")
            yield
    finally:
        rules.write_text(before)
        server.execute("SELECT pg_reload_conf()")


@contextlib.contextmanager
def logging_in(subject: Subject) -> Iterator[None]:
    """A session that a trigger keeps from becoming idle for the first time."""
    subject.do(
        "CREATE ROLE test_late LOGIN",
        """CREATE FUNCTION wait() RETURNS event_trigger LANGUAGE plpgsql AS
            'BEGIN IF session_user = ''test_late'' THEN PERFORM pg_sleep(600); END IF; END'""",
        "CREATE EVENT TRIGGER wait ON login EXECUTE FUNCTION wait()",
        "ALTER EVENT TRIGGER wait ENABLE ALWAYS",
    )
    late = ThreadPoolExecutor(1)
    try:
        session = late.submit(lambda: psycopg.connect(subject.server.dsn(subject.name, "test_late")))
        pid = "SELECT pid FROM pg_stat_activity WHERE usename = 'test_late' AND wait_event = 'PgSleep'"
        wait_until(lambda: subject.rows(pid) != [], "it sleeps")
        yield
    finally:
        subject.rows(f"SELECT pg_terminate_backend(pid, 10000) FROM ({pid}) AS late")  # noqa: S608
        assert isinstance(session.exception(), psycopg.Error)
        late.shutdown()
        subject.do("DROP EVENT TRIGGER wait", "DROP ROLE test_late")


def test_sessions_that_are_starting_count(subject: Subject, tmp_path: Path) -> None:
    """Connections are all that the view has, from 18 on those too that are not authenticated."""
    clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    name = "pg_stat_activity_connections"
    with reading(subject.server, tmp_path, "activity") as exporter, subject.session() as session:

        def all_count() -> bool:
            row = session.execute(clients).fetchone()
            return row == (sum(value for key, value in exporter.scrape().items() if key[0] == name),)

        nowhere, there = (f'{name}{{datname="{one}",state="starting"}}' for one in ("", subject.name))
        newest = subject.major >= 18
        shows(exporter, {nowhere: 0 if newest else None, there: 0})
        with authenticating(subject.server):
            shows(exporter, {nowhere: 1 if newest else None, there: 0})
            wait_until(all_count, "all sessions count")
        if subject.major >= 17:
            with logging_in(subject):
                shows(exporter, {nowhere: 0 if newest else None, there: 1})
                wait_until(all_count, "all sessions count")


def series(answer: Answer) -> set[object]:
    """Return the series that the collectors delivered; of statements, which are never the same, the names only."""
    own = ("pg_scrape_", "pg_exporter_", "process_", "python_", "pg_up")
    return {key[0] if key[0].startswith("pg_stat_statements") else key for key in answer if not key[0].startswith(own)}


@pytest.mark.parametrize("role", [None, "pg_read_all_stats", "pg_read_all_settings", "pg_monitor"])
def test_the_declared_role_is_enough_and_the_least(
    any_postgres: PostgresServer, role: str | None, tmp_path: Path
) -> None:
    """With exactly this role, collectors show what a superuser sees; without it, they say why they do not."""
    columns_of(any_postgres)
    names = [name for name in FAST if content.load()[name].declaration.role == role]
    expected = {name: float(name != "io" or major_of(any_postgres) > 15) for name in names}
    with contextlib.ExitStack() as stack:
        any_postgres.execute("CREATE ROLE test_least LOGIN")
        stack.callback(any_postgres.execute, "DROP ROLE test_least")
        if role:
            with reading(any_postgres, tmp_path, *names, user="test_least") as exporter:
                skipped = 'pg_scrape_collector_skipped{{collector="{}",reason="privilege"}}'
                shows(exporter, {skipped.format(name): 1 for name in names})
            any_postgres.execute(f"GRANT {role} TO test_least")
        holder = stack.enter_context(psycopg.connect(any_postgres.dsn()))
        holder.execute("SELECT pg_current_xact_id(), pg_advisory_xact_lock(1)")
        shown = []
        for user in ("test_least", "postgres"):
            with reading(any_postgres, tmp_path, *names, user=user) as exporter:
                wait_until(lambda one=exporter: one.scrape().success() == expected, f"{user} is served")  # type: ignore[misc]
                shown.append(series(exporter.scrape()))
        assert shown[0] == shown[1]
        assert len(shown[0]) > 3 * len(names) / 2


def test_statements_sum_over_users_levels_and_versions(any_postgres: PostgresServer, tmp_path: Path) -> None:
    """Calls of two users and from within a function are one series; each figure is the sum over the view's rows."""
    columns_of(any_postgres)
    any_postgres.execute("CREATE ROLE test_buyer; CREATE TABLE bought (n int); GRANT ALL ON bought TO test_buyer")
    options = "-c pg_stat_statements.track=all -c pg_stat_statements.track_planning=on"
    statement = "INSERT INTO bought SELECT generate_series(1, 100)"
    try:
        with psycopg.connect(any_postgres.dsn(), autocommit=True, options=options) as session:
            session.execute("SELECT pg_stat_statements_reset()")
            for role in ("postgres", "test_buyer"):
                session.execute(f"SET ROLE {role}".encode())
                session.execute(statement.encode())
            session.execute("RESET ROLE")
            session.execute(f"DO $$ BEGIN {statement}; END $$".encode())
        timing = "shared_blk" if major_of(any_postgres) >= 17 else "blk"
        names = {
            "calls": "calls", "rows": "rows", "plans": "plans", "wal_bytes": "wal_bytes",
            "blocks_hit": "shared_blks_hit", "blocks_dirtied": "shared_blks_dirtied",
            "blocks_written": "shared_blks_written", "temp_blocks_read": "temp_blks_read",
        }  # fmt: skip
        times = {
            "seconds": "total_exec_time",
            "plan_seconds": "total_plan_time",
            "jit_seconds": "jit_generation_time",
            "block_read_seconds": f"{timing}_read_time",
            "block_write_seconds": f"{timing}_write_time",
        }
        rows = any_postgres.execute(
            "SELECT to_jsonb(s) FROM pg_stat_statements AS s WHERE query LIKE 'INSERT INTO bought%'"
        )
        entries = [row for (row,) in rows]
        assert len(entries) == 3
        assert sum(row["calls"] for row in entries) == 3
        assert sum(row["rows"] for row in entries) == 300
        (queryid,) = {row["queryid"] for row in entries}
        wanted = {name: float(sum(row[column] for row in entries)) for name, column in names.items()}
        wanted |= {name: float(sum(row[column] for row in entries)) / 1000 for name, column in times.items()}
        assert wanted["plans"] > 0
        assert wanted["wal_bytes"] > 0
        with reading(any_postgres, tmp_path, "statements") as exporter:
            labels = f'{{queryid="{queryid}",datname="postgres"}}'
            shows(exporter, {f"pg_stat_statements_{name}_total{labels}": value for name, value in wanted.items()})
    finally:
        any_postgres.execute("DROP TABLE bought; DROP ROLE test_buyer")
