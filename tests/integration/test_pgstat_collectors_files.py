"""The archiver and the server's files, by what is on disk, on every PostgreSQL version."""

import contextlib
import time
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_collectors import reading, shows
from tests.integration.postgres_versions import MAJORS, Versions


@pytest.mark.parametrize("major", MAJORS)
def test_archiver(versions: Versions, major: int, tmp_path: Path) -> None:
    """Files that wait and that are done, as the server marks them on disk."""
    with versions.server(major, "archive_mode = on\narchive_command = 'false'\nautovacuum = off\n") as server:
        status = server.data / "pg_wal" / "archive_status"
        with reading(server, tmp_path, "archiver") as exporter:
            for n in range(2):
                server.execute(f"SELECT pg_logical_emit_message(true, '', '{n}'), pg_switch_wal()")
            wait_until(lambda: len(list(status.glob("*.ready"))) == 2, "two files wait")
            answer = shows(exporter, {
                "pg_stat_archiver_waiting_files": 2, "pg_stat_archiver_archived_total": 0,
                "pg_stat_archiver_last_archived_timestamp_seconds": None,
            })  # fmt: skip
            oldest = min(path.stat().st_mtime for path in status.glob("*.ready"))
            waited = answer.value("pg_stat_archiver_longest_wait_seconds")
            assert waited is not None
            # The server sees the files' times in whole seconds.
            assert waited <= time.time() - oldest + 1
            wait_until(lambda: "archive command failed" in (server.directory / "log").read_text(), "it failed")
            failed = (server.directory / "log").read_text().count("archive command failed")
            wait_until(
                lambda: (exporter.scrape().value("pg_stat_archiver_failed_total") or 0) >= failed, "it is counted"
            )
            assert exporter.scrape().value("pg_stat_archiver_last_failed_timestamp_seconds") is not None
            server.execute("ALTER SYSTEM SET archive_command = 'true'")
            server.execute("SELECT pg_reload_conf(), pg_switch_wal()")
            shows(exporter, {"pg_stat_archiver_waiting_files": 0, "pg_stat_archiver_longest_wait_seconds": 0})
            done = len(list(status.glob("*.done")))
            shows(exporter, {"pg_stat_archiver_archived_total": done})
            assert done >= 2


def test_files(any_postgres: PostgresServer, tmp_path: Path) -> None:
    """What is in the folders of WAL and of temporary files, by the file system."""
    wal, temporary = any_postgres.data / "pg_wal", any_postgres.data / "base" / "pgsql_tmp"
    with reading(any_postgres, tmp_path, "files") as exporter, contextlib.ExitStack() as stack:
        shows(exporter, {"pg_temporary_files": 0, "pg_temporary_files_bytes": 0})
        session = stack.enter_context(psycopg.connect(any_postgres.dsn(), options="-c work_mem=64kB"))
        session.execute("DECLARE c CURSOR FOR SELECT n FROM generate_series(1, 50000) AS n ORDER BY -n")
        session.execute("FETCH 1 FROM c")
        files = [path for path in temporary.rglob("*") if path.is_file()]
        assert files
        segments = [path for path in wal.iterdir() if path.is_file()]
        shows(exporter, {
            "pg_temporary_files": len(files), "pg_temporary_files_bytes": sum(one.stat().st_size for one in files),
            "pg_wal_directory_files": len(segments),
            "pg_wal_directory_bytes": sum(one.stat().st_size for one in segments),
        })  # fmt: skip
