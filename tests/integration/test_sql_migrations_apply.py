"""The migration runner against a real PostgreSQL in use: order, drift, locks, kills, leftovers."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import wait_until
from tests.integration.migrate_process import Connection, Runner, ask, finish, valid

CIC = "-- transaction: none\nCREATE INDEX CONCURRENTLY IF NOT EXISTS idx_t_a ON t (a);\n"
BUILDING = "SELECT pid FROM pg_stat_progress_create_index WHERE phase = 'waiting for old snapshots'"


@pytest.fixture
def runner(database: str, tmp_path: Path) -> Runner:
    """A runner on a fresh database with a table t."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT n AS a, n % 7 AS b FROM generate_series(1, 1000) AS n")
    return Runner(database, tmp_path / "sql")


@pytest.fixture
def admin(database: str) -> Iterator[Connection]:
    """A session of the test's own."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def reader(database: str) -> Iterator[Connection]:
    """A session of somebody else, which holds snapshots and locks."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def hold_snapshot(connection: Connection) -> None:
    """Begin a transaction whose snapshot CREATE INDEX CONCURRENTLY has to wait for; it touches no table of ours."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    connection.execute("SELECT 1")


def test_apply_status_and_history(runner: Runner, admin: Connection) -> None:
    """Pending, applied once in order, current; what was noted fits what is there."""
    runner.write(
        V0001__make="CREATE TABLE made (a int);",
        V0002__fill="INSERT INTO made VALUES (1); INSERT INTO made SELECT a + 1 FROM made;",
        R__view="CREATE OR REPLACE VIEW seen AS SELECT count(*) AS n FROM made;",
    )
    assert runner.states(3) == dict.fromkeys(("V0001__make", "V0002__fill", "R__view"), "pending")
    assert ask(admin, "SELECT to_regnamespace('messwarte')") is None, "status writes nothing"
    assert "3 applied" in runner.run("apply")
    assert runner.status(0)["state"] == "current"
    assert ask(admin, "SELECT n FROM seen") == 2
    rows = admin.execute("SELECT file, version, applied_by, seconds >= 0 FROM messwarte.migration_history ORDER BY id")
    assert rows.fetchall() == [
        ("V0001__make.sql", 1, "postgres", True),
        ("V0002__fill.sql", 2, "postgres", True),
        ("R__view.sql", None, "postgres", True),
    ]
    sums: dict[str, str] = dict(admin.execute("SELECT file, checksum FROM messwarte.migration_history").fetchall())
    for file, noted in sums.items():
        path = next(runner.directory.rglob(file))
        shown = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
        assert shown.split()[0] == noted
    before = ask(admin, "SELECT md5(string_agg(h::text, '')) FROM messwarte.migration_history AS h")
    assert "nothing to apply" in runner.run("apply")
    assert ask(admin, "SELECT md5(string_agg(h::text, '')) FROM messwarte.migration_history AS h") == before
    assert ask(admin, "SELECT count(*) FROM made") == 2


def test_a_changed_repeatable_file_is_applied_again(runner: Runner, admin: Connection) -> None:
    """Its content is the version."""
    runner.write(R__view="CREATE OR REPLACE VIEW seen AS SELECT 1 AS n;")
    runner.run("apply")
    runner.write(R__view="CREATE OR REPLACE VIEW seen AS SELECT 2 AS n;")
    assert runner.states(3) == {"R__view": "pending"}
    runner.run("apply")
    assert ask(admin, "SELECT n FROM seen") == 2
    assert ask(admin, "SELECT count(*) FROM messwarte.migration_history") == 2


def test_drift_is_refused_by_name_and_nothing_is_applied(runner: Runner, admin: Connection) -> None:
    """A changed and a missing applied file stop the run before the pending one."""
    runner.write(V0001__a="SELECT 1;", V0002__b="SELECT 1;")
    runner.run("apply")
    runner.write(V0001__a="SELECT 2;", V0003__c="CREATE TABLE never (a int);")
    (runner.directory / "versioned" / "V0002__b.sql").rename(runner.directory / "versioned" / "V0002__renamed.sql")
    said = runner.run("apply", status=1)
    assert "V0001__a.sql was changed after it was applied" in said
    assert "V0002__b.sql was applied" in said
    assert "no longer in the directory" in said
    assert runner.states(1) == {"V0001__a": "changed", "V0002__b": "missing", "V0003__c": "pending"}
    assert "V0001__a.sql was changed" in runner.run("status", status=1)
    assert ask(admin, "SELECT to_regclass('never')") is None


def test_a_failing_migration_leaves_nothing_and_says_where(runner: Runner, admin: Connection) -> None:
    """What came before stays, its own part is rolled back, the line and the server's hint are told."""
    runner.write(
        V0001__good="CREATE TABLE good (amount int);",
        V0002__bad="CREATE TABLE half (a int);\n\nSELECT amuont\nFROM good;",
        V0003__later="CREATE TABLE later (a int);",
    )
    said = runner.run("apply", status=1)
    assert 'V0002__bad.sql, line 3: column "amuont" does not exist' in said
    assert 'hint: Perhaps you meant to reference the column "good.amount"' in said
    assert [ask(admin, "SELECT to_regclass(%s) IS NOT NULL", name) for name in ("good", "half", "later")] == [
        True,
        False,
        False,
    ]
    assert runner.states(3) == {"V0001__good": "applied", "V0002__bad": "pending", "V0003__later": "pending"}
    runner.write(V0002__bad="CREATE TABLE half (a int);")
    assert "2 applied" in runner.run("apply")


def test_settings_and_roles_do_not_leak_from_one_file_to_the_next(runner: Runner, admin: Connection) -> None:
    """A file may change its session; the history is written all the same and the next file begins afresh."""
    admin.execute("DROP ROLE IF EXISTS test_migrate_nobody")
    admin.execute("CREATE ROLE test_migrate_nobody")
    try:
        runner.write(
            V0001__a="SET search_path = pg_temp; SET ROLE test_migrate_nobody;",
            V0002__b="CREATE TABLE here AS SELECT current_user::text AS who;",
        )
        runner.run("apply")
    finally:
        admin.execute("DROP ROLE test_migrate_nobody")
    assert ask(admin, "SELECT who FROM public.here") == "postgres"


def test_an_index_build_waits_for_old_snapshots_and_tells_so(
    runner: Runner, admin: Connection, reader: Connection
) -> None:
    """However short --lock-timeout is: a timeout there would leave an invalid index. Writers go on meanwhile."""
    runner.write(V0001__index=CIC)
    hold_snapshot(reader)
    with runner.start("apply", "--lock-timeout", "100ms") as process:
        wait_until(lambda: ask(admin, BUILDING) is not None, "the build waits for the snapshot")
        assert process.stderr is not None
        told = process.stderr.readline()
        assert "V0001__index.sql: waiting for old snapshots" in told
        assert f"process {reader.info.backend_pid} (postgres" in told
        admin.execute("SET lock_timeout = '1s'")
        admin.execute("INSERT INTO t VALUES (0, 0)")
        assert runner.status(3)["running"]["state"] == "idle"
        reader.execute("COMMIT")
        finish(process)
    assert valid(admin, "idx_t_a") is True
    assert runner.states(0) == {"V0001__index": "applied"}


def test_kill_9_during_an_index_build_is_mended_by_the_next_run(
    runner: Runner, admin: Connection, reader: Connection
) -> None:
    """The server ends the orphaned build, status tells of the interruption, apply drops and rebuilds the leftover."""
    runner.write(V0001__index=CIC, V0002__table="CREATE TABLE after (a int);")
    hold_snapshot(reader)
    with runner.start("apply") as process:
        wait_until(lambda: ask(admin, BUILDING) is not None, "the build waits for the snapshot")
        orphan = ask(admin, BUILDING)
        os.kill(process.pid, signal.SIGKILL)
    assert valid(admin, "idx_t_a") is False
    assert runner.states(3) == {"V0001__index": "interrupted", "V0002__table": "pending"}
    # At once: the orphan may still be at work, and the snapshot that it waits for is still held.
    with runner.start("apply") as process:
        wait_until(lambda: ask(admin, BUILDING) not in {None, orphan}, "the next run builds anew", 60)
        reader.execute("COMMIT")
        said = finish(process)
    assert "invalid leftover of an interrupted build: dropping and rebuilding it" in said
    assert valid(admin, "idx_t_a") is True
    assert runner.states(0) == {"V0001__index": "applied", "V0002__table": "applied"}
    assert ask(admin, "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass") == 1


def test_sigterm_cancels_the_build_on_the_server(runner: Runner, admin: Connection, reader: Connection) -> None:
    """Nothing goes on behind the operator's back; what happened is noted."""
    runner.write(V0001__index=CIC)
    hold_snapshot(reader)
    with runner.start("apply") as process:
        wait_until(lambda: ask(admin, BUILDING) is not None, "the build waits for the snapshot")
        process.terminate()
        assert "run it again" in finish(process, status=130)
    assert ask(admin, BUILDING) is None
    assert runner.states(3) == {"V0001__index": "failed"}
    reader.execute("COMMIT")
    runner.run("apply")
    assert valid(admin, "idx_t_a") is True


def test_an_invalid_leftover_of_somebody_else_is_rebuilt(runner: Runner, admin: Connection) -> None:
    """IF NOT EXISTS alone would take it for the index."""
    admin.execute("INSERT INTO t VALUES (1, 1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        admin.execute("CREATE UNIQUE INDEX CONCURRENTLY idx_t_a ON t (a)")
    assert valid(admin, "idx_t_a") is False
    runner.write(V0001__index=CIC)
    assert "invalid leftover" in runner.run("apply")
    assert valid(admin, "idx_t_a") is True
    assert ask(admin, "SELECT indisunique FROM pg_index WHERE indexrelid = 'idx_t_a'::regclass") is False


def test_a_unique_index_over_doubles_fails_with_advice_and_can_be_mended(runner: Runner, admin: Connection) -> None:
    """The error names the rows; after they are mended the same file goes through."""
    admin.execute("INSERT INTO t VALUES (1, 1)")
    runner.write(V0001__index="-- transaction: none\nCREATE UNIQUE INDEX CONCURRENTLY idx_t_a ON t (a);")
    said = runner.run("apply", status=1)
    assert "V0001__index.sql, line 2: could not create unique index" in said
    assert "Key (a)=(1) is duplicated" in said
    assert "the next apply drops and rebuilds it" in said
    assert "could not create unique index" in runner.status(3)["files"][0]["error"]
    admin.execute("DELETE FROM t WHERE ctid = (SELECT max(ctid) FROM t)")
    runner.run("apply")
    assert valid(admin, "idx_t_a") is True


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("CREATE INDEX idx_t_a ON t (a)", None),
        ("CREATE INDEX idx_t_a ON t (b)", "exists already, but as: CREATE INDEX idx_t_a ON public.t USING btree (b)"),
        ("CREATE TABLE u (a int); CREATE INDEX idx_t_a ON u (a)", "exists already, on table u"),
        ("CREATE TABLE idx_t_a (a int)", "exists and is no index"),
    ],
    ids=["the same", "other columns", "other table", "no index"],
)
def test_what_bears_the_name_already(runner: Runner, admin: Connection, there: str, said: str | None) -> None:
    """The same index counts as built; anything else would silently be left by IF NOT EXISTS."""
    admin.execute(there.encode())
    runner.write(V0001__index=CIC)
    answer = runner.run("apply", status=1 if said else 0)
    assert (said or "1 applied") in answer


def test_transactional_ddl_gives_way_and_tries_again(runner: Runner, admin: Connection, reader: Connection) -> None:
    """While a reader is in the way, others are not stopped for longer than the lock timeout; then it goes through."""
    runner.write(V0001__column="-- lock_timeout: 300ms\nALTER TABLE t ADD COLUMN c int;")
    reader.execute("BEGIN")
    reader.execute("SELECT FROM t LIMIT 1")
    with runner.start("apply") as process:
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
        wait_until(lambda: ask(admin, waiting) is not None, "the change waits for the reader")
        admin.execute("SET lock_timeout = '2s'")
        assert ask(admin, "SELECT count(*) FROM t") == 1000
        assert process.stderr is not None
        assert "attempt 1 of 10, trying again" in process.stderr.readline()
        reader.execute("COMMIT")
        finish(process)
    assert ask(admin, "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'") == 1
    assert ask(admin, "SELECT count(*) FROM messwarte.migration_history") == 1


def test_retries_are_bounded_and_name_who_is_in_the_way(runner: Runner, admin: Connection, reader: Connection) -> None:
    """The error says that nothing changed, and what to do."""
    runner.write(V0001__column="-- lock_timeout: 400ms\nALTER TABLE t ADD COLUMN c int;")
    reader.execute("BEGIN")
    reader.execute("SELECT FROM t LIMIT 1")
    said = runner.run("apply", status=1)
    assert "gave up after 10 attempts" in said
    assert f"in the way: process {reader.info.backend_pid}" in said
    assert "Nothing was changed" in said
    assert runner.states(3) == {"V0001__column": "pending"}
    assert ask(admin, "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'") == 0


def test_two_runs_at_once_apply_everything_once(runner: Runner, admin: Connection, reader: Connection) -> None:
    """The second waits without a snapshot, so the first one's index build does not wait for it in turn."""
    runner.write(V0001__index=CIC, V0002__table="CREATE TABLE made (a int);")
    hold_snapshot(reader)
    with runner.start("apply") as first:
        wait_until(lambda: ask(admin, BUILDING) is not None, "the first run builds")
        with runner.start("apply") as second:
            assert second.stderr is not None
            told = second.stderr.readline()
            assert "waiting for another run: process" in told
            short = runner.run("apply", "--wait", "100ms", status=1)
            assert "another run is not over" in short
            reader.execute("COMMIT")
            assert "2 applied" in finish(first)
            assert "nothing to apply" in finish(second)
    assert ask(admin, "SELECT count(*) FROM messwarte.migration_history") == 2


def test_files_run_under_psql_as_well(
    runner: Runner, admin: Connection, need_program: Callable[[str, str], str]
) -> None:
    """Whoever has no Python applies them by hand, and the runner then finds the work done."""
    psql = need_program("psql", "postgresql-client")
    runner.write(V0001__index=CIC, R__view="CREATE OR REPLACE VIEW seen AS SELECT 1 AS n;")
    for path in sorted(runner.directory.rglob("*.sql")):
        run = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", runner.dsn, "-f", str(path)]
        subprocess.run(run, check=True, capture_output=True)
    runner.run("apply")
    assert valid(admin, "idx_t_a") is True


def test_an_unreachable_database_and_a_wrong_directory_are_said_plainly(runner: Runner) -> None:
    """No traceback."""
    runner.write(V0001__a="SELECT 1;")
    away = Runner("host=127.0.0.1 port=1 dbname=none", runner.directory)
    for verb in ("apply", "status", "refresh"):
        said = away.run(verb, status=1)
        assert said.startswith("error: cannot connect: ")
        assert "Traceback" not in said
    shutil.rmtree(runner.directory)
    assert "neither versioned/ nor repeatable/" in runner.run("apply", status=1)
