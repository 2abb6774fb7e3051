"""Databases, WAL, checkpoints, I/O, SLRU caches, archiving and files: work counted by hand on every version."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import PostgresServer, postgres_server, wait_until
from tests.integration.pgstat_collectors import change, major_of, position, reading, sample, shows
from tests.integration.pgstat_exporter_process import RunningExporter
from tests.integration.postgres_versions import CONFIGURATION, MAJORS, Versions

BLOCK = 8192
SLRUS = {
    "commit_timestamp", "multixact_member", "multixact_offset", "notify", "serializable", "subtransaction",
    "transaction", "other",
}  # fmt: skip


@pytest.fixture(params=MAJORS)
def quiet(versions: Versions, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server on which nothing happens that the test does not do, with pages small in number and safe on disk."""
    with versions.server(request.param, "autovacuum = off\nfsync = on\nshared_buffers = 16MB\n") as server:
        yield server


def disk(folder: Path) -> int:
    """Return the size of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def settled(exporter: RunningExporter, name: str) -> None:
    """Wait until a counter has not moved for half a second."""

    def stands() -> bool:
        before = exporter.scrape().value(name)
        time.sleep(0.5)
        return exporter.scrape().value(name) == before

    wait_until(stands, f"{name} has settled")


def deadlock(dsn: str) -> None:
    """Let two sessions wait for each other until the server ends one of them."""
    met = threading.Barrier(2)
    failed: list[str] = []

    def take(first: str, second: str) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute(f"LOCK TABLE {first}".encode())
            met.wait()
            try:
                connection.execute(f"LOCK TABLE {second}".encode())
            except psycopg.errors.DeadlockDetected:
                failed.append(first)
                connection.rollback()

    threads = [threading.Thread(target=take, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 1


def test_database(any_postgres: PostgresServer, tmp_path: Path) -> None:
    """Rows, a deadlock, a killed session, temporary files and a limit in a database of their own."""
    dsn = any_postgres.dsn("counted")
    any_postgres.execute("CREATE DATABASE counted CONNECTION LIMIT 7")
    try:
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE a AS SELECT generate_series(1, 20000) AS n")
            connection.execute("CREATE TABLE b (n int)")
            # A session that ends passes its counters on after that, and so after a reset by another.
            connection.execute("SELECT pg_stat_force_next_flush()")
            connection.commit()
            connection.execute("SELECT pg_stat_reset()")
            connection.commit()
        with psycopg.connect(dsn, options="-c work_mem=64kB -c log_temp_files=0") as connection:
            connection.execute("INSERT INTO b SELECT generate_series(1, 1000)")
            connection.execute("UPDATE b SET n = -n WHERE n <= 10")
            connection.execute("DELETE FROM b WHERE n > 995")
            connection.commit()
            connection.execute("INSERT INTO b VALUES (1)")
            connection.rollback()
            connection.execute("SELECT n FROM a ORDER BY -n OFFSET 19999")
        deadlock(dsn)
        with psycopg.connect(dsn) as victim:
            any_postgres.execute(f"SELECT pg_terminate_backend({victim.info.backend_pid}, 10000)")
            victim.close()
        written = [int(line.rpartition(" ")[2]) for line in (any_postgres.directory / "log").read_text().splitlines()
                   if "temporary file" in line and "size" in line]  # fmt: skip
        with reading(any_postgres, tmp_path, "database", "database_size") as exporter:
            shows(exporter, {f'pg_stat_database_{name}{{datname="counted"}}': value for name, value in {
                "rows_inserted_total": 1001, "rows_updated_total": 10, "rows_deleted_total": 5, "deadlocks_total": 1,
                "sessions_killed_total": 1, "sessions_fatal_total": 0, "temp_files_total": len(written),
                "temp_bytes_total": sum(written), "conflicts_total": 0,
                "checksum_failures_total": 0 if major_of(any_postgres) >= 18 else None,
            }.items()})  # fmt: skip
            any_postgres.execute("CHECKPOINT")
            ((oid,),) = any_postgres.execute("SELECT oid FROM pg_database WHERE datname = 'counted'")
            answer = shows(exporter, {
                'pg_database_connection_limit{datname="counted"}': 7,
                'pg_database_connection_limit{datname="postgres"}': None,
                'pg_database_size_bytes{datname="counted"}': disk(any_postgres.data / "base" / str(oid)),
            })  # fmt: skip
        new = answer.labelled("pg_stat_database_parallel_workers_planned_total", "datname")
        assert ("counted" in new) == (major_of(any_postgres) >= 18)
        assert not answer.labelled("pg_stat_database_conflicts_by_cause_total", "cause")
    finally:
        any_postgres.execute("DROP DATABASE counted WITH (FORCE)")


@pytest.mark.parametrize("major", MAJORS)
def test_checksum_failures(versions: Versions, major: int, tmp_path: Path) -> None:
    """A page that was spoilt on disk is counted once for each time that it is read."""
    arguments = ("-A", "trust", "--data-checksums")
    with postgres_server(versions.installation(major), CONFIGURATION, *arguments) as server:
        server.execute("CREATE TABLE spoilt AS SELECT generate_series(1, 100) AS n")
        ((name,),) = server.execute("SELECT pg_relation_filepath('spoilt')")
        server.stop()
        with (server.data / name).open("r+b") as file:
            file.seek(BLOCK - 8)
            file.write(b"scratch!")
        server.start()
        before = time.time()
        for _ in range(3):
            with pytest.raises(psycopg.errors.DataCorrupted):
                server.execute("SELECT count(*) FROM spoilt")
        with reading(server, tmp_path, "database", "settings") as exporter:
            answer = shows(exporter, {'pg_stat_database_checksum_failures_total{datname="postgres"}': 3})
            last = sample(answer, 'pg_stat_database_checksum_last_failure_timestamp_seconds{datname="postgres"}')
            assert last is not None
            assert before <= last <= time.time()
            shows(exporter, {"pg_settings_data_checksums": 1})


def test_wal(quiet: PostgresServer, tmp_path: Path) -> None:
    """Bytes by the distance of positions, records, images and syncs by what was done."""

    def lsn() -> int:
        return position(quiet.execute("SELECT pg_current_wal_insert_lsn()::text")[0][0])

    quiet.execute("CREATE TABLE wide (n int, filler text)")
    quiet.execute("INSERT INTO wide SELECT n, repeat('x', 500) FROM generate_series(1, 3000) AS n")
    pages = quiet.execute("SELECT pg_relation_size('wide')")[0][0] // BLOCK
    with reading(quiet, tmp_path, "wal") as exporter:
        quiet.execute("CHECKPOINT")
        began = lsn()
        images = change(exporter, "pg_stat_wal_full_page_images_total",
                        lambda: quiet.execute("UPDATE wide SET n = n + 1"), lambda grown: grown >= pages)  # fmt: skip
        assert images <= 2 * pages + 50
        records = change(exporter, "pg_stat_wal_records_total",
                         lambda: quiet.execute("UPDATE wide SET n = n + 1"), lambda grown: grown >= 3000)  # fmt: skip
        assert records <= 2 * 3000 + 500
        began = lsn()
        written = change(exporter, "pg_stat_wal_bytes_total",
                         lambda: quiet.execute("UPDATE wide SET n = n + 1"), lambda grown: grown > 1e5)  # fmt: skip
        # The headers of the WAL's own pages are no records.
        assert written == pytest.approx(lsn() - began, rel=0.03)

        def commits() -> None:
            with psycopg.connect(quiet.dsn(), autocommit=True) as connection:
                for _ in range(30):
                    connection.execute("INSERT INTO wide VALUES (0, '')")

        assert change(exporter, "pg_stat_wal_syncs_total", commits, lambda grown: grown >= 30) <= 45
        assert change(exporter, "pg_stat_wal_writes_total", commits, lambda grown: grown >= 30) <= 60
        answer = exporter.scrape()
        for name in ("write", "sync"):
            assert (answer.value(f"pg_stat_wal_{name}_seconds_total") or 0) > 0
        shown = answer.value("pg_wal_position_bytes")
        assert shown is not None
        assert began < shown <= lsn()


def test_checkpoints_and_who_writes_buffers(quiet: PostgresServer, tmp_path: Path) -> None:
    """Three checkpoints are three, and the pages of a table pass through each of the counters."""
    requested = "pg_stat_checkpointer_requested_total"
    with reading(quiet, tmp_path, "checkpointer") as exporter:
        quiet.execute("CHECKPOINT")
        assert (
            change(exporter, requested, lambda: [quiet.execute("CHECKPOINT") for _ in range(3)], lambda n: n >= 3) == 3
        )
        answer = exporter.scrape()
        done = answer.value("pg_stat_checkpointer_done_total")
        assert (done is not None) == (major_of(quiet) >= 18)
        assert done is None or done >= 3
        assert (answer.value("pg_stat_checkpointer_restartpoints_done_total") == 0) == (major_of(quiet) >= 17)

        def grow() -> None:
            # Fewer pages than the ring of 256 buffers that this fills, so that none is written twice.
            quiet.execute(
                "CREATE TABLE grown AS SELECT n, repeat('x', 700) AS filler FROM generate_series(1, 2000) AS n"
            )
            # Version 15 adds up what sessions wrote when the checkpointer next works.
            quiet.execute("CHECKPOINT")

        grown = change(exporter, "pg_stat_bgwriter_buffers_backend_total", grow, lambda n: n >= 180)
        pages = quiet.execute("SELECT pg_relation_size('grown')")[0][0] / BLOCK
        assert grown == pytest.approx(pages, rel=0.2)
        quiet.execute("UPDATE grown SET n = -n WHERE n <= 1000")
        before, position_before = time.time(), quiet.execute("SELECT pg_current_wal_lsn()::text")[0][0]
        written = change(exporter, "pg_stat_checkpointer_buffers_written_total",
                         lambda: quiet.execute("CHECKPOINT"), lambda n: n >= 180)  # fmt: skip
        # The first 1000 rows and their new versions; a page holds eleven.
        assert written <= 2 * 1000 / 11 + 100
        answer = exporter.scrape()
        began = answer.value("pg_checkpoint_last_timestamp_seconds")
        assert began is not None
        assert before - 1 <= began <= time.time()
        quiet.execute("UPDATE grown SET n = -n WHERE n > 1000")
        since = exporter.scrape().value("pg_checkpoint_wal_since_bytes")
        assert since is not None
        now = position(quiet.execute("SELECT pg_current_wal_lsn()::text")[0][0])
        assert 1e5 < since <= now - position(position_before)
        # The background writer tells every 0.2 s what was allocated until then, what came before this included.
        settled(exporter, "pg_stat_bgwriter_buffers_alloc_total")
        allocated = change(
            exporter,
            "pg_stat_bgwriter_buffers_alloc_total",
            lambda: quiet.execute("CREATE TABLE more AS SELECT * FROM grown"),
            lambda n: n >= pages,
        )
        assert allocated <= 2 * pages + 100
        answer = shows(exporter, {"pg_stat_bgwriter_buffers_backend_fsync_total": 0})
        ((clean, stopped),) = quiet.execute(
            "SELECT pg_stat_get_bgwriter_buf_written_clean(), pg_stat_get_bgwriter_maxwritten_clean()"
        )
        assert answer.value("pg_stat_bgwriter_buffers_clean_total") == clean
        assert answer.value("pg_stat_bgwriter_maxwritten_clean_total") == stopped


def test_io(quiet: PostgresServer, tmp_path: Path) -> None:
    """A table's pages, written, read from disk and found in the cache, in bytes on every version that counts them."""
    if major_of(quiet) < 16:
        with reading(quiet, tmp_path, "io", "server") as exporter:
            answer = exporter.scrape()
        assert answer.value("pg_scrape_collector_skipped", collector="io", reason="version") == 1
        assert "pg_stat_io_" not in answer.body
        return
    quiet.execute("CREATE TABLE wide AS SELECT n, repeat('x', 700) AS filler FROM generate_series(1, 3000) AS n")
    ((size,),) = quiet.execute("SELECT pg_relation_size('wide')")
    client = 'backend_type="client backend",object="relation"'
    with reading(quiet, tmp_path, "io") as exporter:
        extended = sample(exporter.scrape(), f'pg_stat_io_extend_bytes_total{{{client},context="bulkwrite"}}')
        assert extended == pytest.approx(size, rel=0.2)
        quiet.stop()
        quiet.start()
        normal = f'{{{client},context="normal"}}'
        read = change(exporter, f"pg_stat_io_read_bytes_total{normal}",
                      lambda: quiet.execute("SELECT count(*) FROM wide"), lambda grown: grown >= size)  # fmt: skip
        assert read <= size + 200 * BLOCK
        hits = change(
            exporter,
            f"pg_stat_io_hits_total{normal}",
            lambda: quiet.execute("SELECT count(*) FROM wide"),
            lambda grown: grown >= size / BLOCK,
        )
        assert hits <= size / BLOCK + 2000
        answer = exporter.scrape()
        assert (sample(answer, f"pg_stat_io_read_seconds_total{normal}") or 0) > 0
        rows = [dict(key[1]) for key in answer if key[0] == "pg_stat_io_writes_total"]
        assert {"checkpointer"} <= {row["backend_type"] for row in rows}
        assert ("wal" in {row["object"] for row in rows}) == (major_of(quiet) >= 18)


def test_slru(quiet: PostgresServer, tmp_path: Path) -> None:
    """The same eight names everywhere; a page of the subtransactions' holds 2048 ids of four bytes each."""
    ((first,),) = quiet.execute("SELECT pg_current_xact_id()::text")
    with reading(quiet, tmp_path, "slru") as exporter:
        assert set(exporter.scrape().labelled("pg_stat_slru_blocks_hit_total", "slru")) == SLRUS
        before = sample(exporter.scrape(), 'pg_stat_slru_blocks_zeroed_total{slru="subtransaction"}') or 0
        quiet.execute("CREATE TABLE t (n int)")
        quiet.execute("""DO $$ BEGIN
            FOR n IN 1 .. 9000 LOOP
                BEGIN INSERT INTO t VALUES (n); EXCEPTION WHEN division_by_zero THEN NULL; END;
            END LOOP;
        END $$""")
        ((last,),) = quiet.execute("SELECT pg_current_xact_id()::text")
        pages = int(last) // 2048 - int(first) // 2048
        assert pages >= 4
        shows(exporter, {'pg_stat_slru_blocks_zeroed_total{slru="subtransaction"}': before + pages})
