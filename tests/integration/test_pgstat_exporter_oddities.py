"""pgstat_exporter where settings of the role, names and files are not what one expects; on servers of its own."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import Installation, PostgresServer, wait_until
from tests.integration.pgstat_exporter_process import (
    COLLECTORS,
    MONITOR,
    Answer,
    only,
    running,
    sessions,
    shop_server,
    write_config,
)
from tests.integration.postgres_versions import CONFIGURATION, replica_of


@pytest.fixture(scope="module")
def server(local_postgresql: Installation) -> Iterator[PostgresServer]:
    """A server of this module's own."""
    with shop_server(local_postgresql, CONFIGURATION) as one:
        yield one


def failed(answer: Answer) -> set[str]:
    """Return the collectors that failed, wherever they did; skipped ones have not."""
    unwell = {labels for (name, labels), value in answer.items() if name.endswith("collector_success") and value != 1}
    skipped = {labels for name, labels in answer if name == "pg_scrape_collector_skipped"}
    without = {frozenset(pair for pair in labels if pair[0] != "reason") for labels in skipped}
    return {dict(labels)["collector"] for labels in unwell - without}


def test_old_string_syntax_changes_nothing(server: PostgresServer, tmp_path: Path) -> None:
    """Where standard_conforming_strings is off, a backslash in the collectors' SQL is one all the same."""
    server.execute("CREATE TABLE messung (am date) PARTITION BY RANGE (am)", "shop")
    server.execute("CREATE TABLE eins PARTITION OF messung FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')", "shop")
    server.execute(
        "CREATE TABLE ware (id int); CREATE INDEX a ON ware ((id + 1)); CREATE INDEX b ON ware ((id+1))", "shop"
    )
    settings = only("partitions", "index_faults")
    server.execute(f"ALTER ROLE {MONITOR} SET standard_conforming_strings = off")
    try:
        with running(write_config(tmp_path, server.dsn("shop", MONITOR), collectors=settings)) as exporter:
            answer = exporter.scrape()
    finally:
        server.execute(f"ALTER ROLE {MONITOR} RESET standard_conforming_strings")
    assert answer.value("pg_faulty_indexes", datname="shop", fault="duplicate") == 1
    table = {"datname": "shop", "schemaname": "public", "relname": "messung"}
    assert answer.value("pg_partitions_last_width_seconds", **table) == 365 * 86400
    assert failed(answer) == set()


def test_a_standby_whose_transactions_are_serializable_by_default(server: PostgresServer, tmp_path: Path) -> None:
    """A standby refuses every such transaction; ours are none."""
    # Only so can the test itself ask the standby.
    server.execute("ALTER ROLE postgres SET default_transaction_isolation = 'read committed'")
    with replica_of(server, "default_transaction_isolation = 'serializable'\n") as replica:
        config = write_config(tmp_path, replica.dsn("shop", MONITOR), collectors=only(*COLLECTORS))
        with running(config) as exporter:
            assert failed(exporter.scrape()) == set()
            before = sessions(replica)
            assert failed(exporter.scrape()) == set()
            assert (sessions(replica), len(before)) == (before, 1)


def test_a_transaction_that_cannot_begin_harms_no_later_scrape(server: PostgresServer, tmp_path: Path) -> None:
    """A limit of the role's own may end the statement that begins it; the session is usable afterwards."""
    with running(write_config(tmp_path, server.dsn("shop", MONITOR), collectors=only(*COLLECTORS))) as exporter:
        assert failed(exporter.scrape()) == set()
        # What set_config() is refused for: it stands for whatever else ends that statement.
        server.execute("REVOKE EXECUTE ON FUNCTION set_config(text, text, bool) FROM PUBLIC", "shop")
        try:
            assert failed(exporter.scrape()) == set(COLLECTORS)
            assert exporter.scrape().value("pg_up") == 1
        finally:
            server.execute("GRANT EXECUTE ON FUNCTION set_config(text, text, bool) TO PUBLIC", "shop")
        assert failed(exporter.scrape()) == set()


def test_a_locked_catalog_piles_nothing_up(server: PostgresServer, tmp_path: Path) -> None:
    """Somebody holds what every function is looked up in, as VACUUM FULL does: no scrape leaves a session behind."""
    with running(write_config(tmp_path, server.dsn("shop", MONITOR), collectors=only("activity", "locks"))) as exporter:
        assert failed(exporter.scrape()) == set()
        with psycopg.connect(server.dsn("shop")) as holder:
            holder.execute("LOCK TABLE pg_catalog.pg_proc IN ACCESS EXCLUSIVE MODE")
            # One that knows the functions already would not wait.
            server.execute(f"SELECT pg_terminate_backend({sessions(server)[0]})")
            for _ in range(4):
                assert failed(exporter.scrape(header=1)) == {"activity", "locks"}
            assert len(sessions(server)) == 1
        assert failed(exporter.scrape()) == set()


SLOW = """
help: What takes half a second.
queries:
  - source: pg_sleep()
    sql: [{file: slow.sql}]
    metrics:
      - {name: slow_answer, type: gauge, column: answer, help: Always 1.}
"""


def slow_config(server: PostgresServer, folder: Path, sql: str, declared: str = SLOW) -> Path:
    """Write a configuration with a collector `slow` of this SQL beside all others."""
    (folder / "slow.yaml").write_text(declared)
    (folder / "slow.sql").write_text(sql)
    return write_config(folder, server.dsn("shop", MONITOR), collector_folders=[str(folder)])


def test_a_scraper_in_a_hurry_spoils_no_other_scrape(server: PostgresServer, tmp_path: Path) -> None:
    """A run that is cut because the one who began it has no more time is not the answer of who joined it."""
    config = slow_config(server, tmp_path, "SELECT 1 AS answer\nFROM pg_sleep(0.5)\n")
    with running(config) as exporter, ThreadPoolExecutor(1) as pool:
        assert exporter.scrape().value("slow_answer") == 1
        hurried = pool.submit(exporter.scrape, header=0.4)
        time.sleep(0.1)
        assert exporter.scrape().value("slow_answer") == 1
        assert hurried.result().value("slow_answer") is None


@pytest.mark.parametrize("run", ["", "every: 1h", "every: 1h\ntop: 5"])
@pytest.mark.parametrize(
    "sql", ["SELECT\n    'ä' || answer AS answer\nFROM nowhere AS\n", "SELECT\n    'ä' || + AS answer\n"]
)
def test_sql_that_is_wrong_is_named_with_its_line(server: PostgresServer, tmp_path: Path, run: str, sql: str) -> None:
    """That of the file, whatever the statement is that the exporter makes of it."""
    config = slow_config(server, tmp_path, sql, f"{run}{SLOW}")
    with running(config) as exporter:
        assert failed(exporter.scrape()) == {"slow"}
        _, log = exporter.stop()
    line = 4 if "FROM" in sql else 2
    assert f"slow.sql:{line}: syntax error at or near" in log


def test_a_table_that_goes_is_named_with_its_line(server: PostgresServer, tmp_path: Path) -> None:
    """Also where the statement had been prepared while the table was there."""
    server.execute(f"CREATE TABLE flüchtig (); GRANT SELECT ON flüchtig TO {MONITOR}", "shop")
    config = slow_config(server, tmp_path, "SELECT count(*) AS answer\nFROM public.flüchtig\n")
    with running(config) as exporter:
        assert failed(exporter.scrape()) == set()
        server.execute("DROP TABLE flüchtig", "shop")
        assert failed(exporter.scrape()) == {"slow"}
        _, log = exporter.stop()
    assert re.search("slow.sql:2: relation .*public.flüchtig.* does not exist", log)


def test_a_table_that_changes_ends_no_other_preparing(server: PostgresServer, tmp_path: Path) -> None:
    """A column of another type spoils the statement that was prepared, which is asked another way from then on."""
    server.execute(f"CREATE TABLE wandel AS SELECT 1 AS answer; GRANT SELECT ON wandel TO {MONITOR}", "shop")
    config = slow_config(server, tmp_path, "SELECT answer AS answer FROM public.wandel\n")
    with running(config) as exporter:
        assert exporter.scrape().value("slow_answer") == 1
        server.execute("ALTER TABLE wandel ALTER answer TYPE bigint", "shop")
        assert exporter.scrape().value("slow_answer") == 1
        server.execute("SELECT pg_stat_statements_reset()", "shop")
        assert exporter.scrape().value("slow_answer") == 1
    asked = [query for (query,) in server.execute("SELECT query FROM pg_stat_statements(true)", "shop")]
    assert [query.partition(" ")[0] for query in asked if "wandel" in query] == ["COPY"]
    # Of another collector that has few rows.
    assert [query.partition(" ")[0] for query in asked if "pg_stat_bgwriter" in query] == ["PREPARE"]


def test_preparing_is_in_a_statements_time(server: PostgresServer, tmp_path: Path) -> None:
    """A table is held while the statement is prepared: what it takes then is not given a second time."""
    server.execute(f"CREATE TABLE gehalten (); GRANT SELECT ON gehalten TO {MONITOR}", "shop")
    config = slow_config(
        server,
        tmp_path,
        "SELECT count(*) AS answer\nFROM public.gehalten, pg_sleep(0.8)\n",
        SLOW.replace("queries:", "lock_timeout: 9s\nstatement_timeout: 1s\nqueries:"),
    )
    with psycopg.connect(server.dsn("shop")) as holder, running(config) as exporter, ThreadPoolExecutor(1) as pool:
        holder.execute("LOCK TABLE gehalten IN ACCESS EXCLUSIVE MODE")
        answer = pool.submit(exporter.scrape)
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'gehalten'::regclass"
        wait_until(lambda: server.execute(waiting, "shop") != [], "it waits")
        time.sleep(0.5)
        holder.rollback()
        assert failed(answer.result()) == {"slow"}
        assert failed(exporter.scrape()) == set()


def test_a_database_whose_name_is_no_utf8(server: PostgresServer, tmp_path: Path) -> None:
    """It cannot be connected to by such a name, which is said; the rest and the process go on."""
    server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    settings = only("database", "table_xid_age")
    with psycopg.connect(server.dsn("latin"), autocommit=True) as latin:
        latin.execute("CREATE DATABASE \"b\u00fccher\" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            with running(write_config(tmp_path, server.dsn("shop", MONITOR), collectors=settings)) as exporter:
                answer = exporter.scrape()
                assert answer.value("pg_scrape_collector_success", collector="table_xid_age", datname="shop") == 1
                assert answer.value("pg_scrape_collector_success", collector="database") == 1
                assert (
                    answer.value("pg_scrape_collector_success", collector="table_xid_age", datname="b\ufffdcher") == 0
                )
                assert exporter.scrape().value("pg_up") == 1
                status, _ = exporter.stop()
                assert status == 0
        finally:
            latin.execute('DROP DATABASE "b\u00fccher"')
    server.execute("DROP DATABASE latin")


def test_what_an_interrupted_drop_left_is_left_alone(server: PostgresServer, tmp_path: Path) -> None:
    """Nobody can connect to such a database, so nothing fails in it."""
    server.execute("CREATE DATABASE broken")
    server.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken'")
    try:
        with running(write_config(tmp_path, server.dsn("shop", MONITOR), collectors=only("table_xid_age"))) as exporter:
            answer = exporter.scrape()
            assert (failed(answer), 'datname="broken"' in answer.body) == (set(), False)
    finally:
        server.execute("DROP DATABASE broken")


def test_a_password_file_that_is_no_text(server: PostgresServer, tmp_path: Path) -> None:
    """It is a fault like a wrong password, which ends with the next one, and no part of it is logged."""
    password = tmp_path / "password"
    password.write_bytes("geh\u00f6rig".encode("latin-1"))
    settings = only("server", "table_xid_age")
    config = write_config(tmp_path, server.dsn("shop", MONITOR), password_file=str(password), collectors=settings)
    with running(config) as exporter:
        assert exporter.scrape(header=2).value("pg_up") == 0
        password.write_text("right")
        wait_until(lambda: exporter.scrape().value("pg_up") == 1, "the new password is taken")
        status, log = exporter.stop()
    assert (status, "is not encoded in UTF-8" in log, "Traceback" in log, "0xf6" in log) == (0, True, False, False)
