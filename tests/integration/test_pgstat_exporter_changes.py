"""pgstat_exporter under a real Prometheus while others change what it reads: extension, databases, a pooler between."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import psycopg
import pytest

from pgstat_exporter.config import Config, Databases, collectors, enabled
from pgstat_exporter.scrape import Exporter
from tests.integration.conftest import Installation, PostgresServer, free_port, wait_until
from tests.integration.pgstat_exporter_process import MONITOR, monitor_on, running, sessions, shop_server, write_config
from tests.integration.postgres_versions import CONFIGURATION
from tests.integration.prometheus_process import Watch
from tests.integration.silent_wire import wire_to

STATEMENTS = {"statements": {"top": 1000}}
# Rows of a table of each database, read in the background every second, by two collectors.
SHELVES = """
help: What lies on shelves.
scope: database
every: 1s
lock_timeout: 60s
statement_timeout: 60s
queries:
  - source: shelf
    sql: [{file: NAME.sql}]
    labels: [name]
    metrics:
      - {name: NAME_goods, type: gauge, column: goods, help: What lies there.}
"""


@pytest.fixture(scope="module")
def server(local_postgresql: Installation) -> Iterator[PostgresServer]:
    """A server of this module's own, all of whose databases have shelves."""
    with shop_server(local_postgresql, CONFIGURATION) as one:
        for database in ("postgres", "shop"):
            one.execute("CREATE TABLE shelf AS SELECT 'a' AS name, 3 AS goods", database)
            one.execute("GRANT SELECT ON shelf TO PUBLIC", database)
        yield one


@pytest.fixture
def background(tmp_path: Path) -> dict[str, object]:
    """Settings with two collectors in the background, of which `shelf` comes first."""
    for name in ("shelf", "tray"):
        (tmp_path / f"{name}.yaml").write_text(SHELVES.replace("NAME", name))
        (tmp_path / f"{name}.sql").write_text(f"SELECT name AS name, goods AS goods FROM public.shelf AS {name}\n")  # noqa: S608
    return {"collector_folders": [str(tmp_path)], "collectors": STATEMENTS}


@pytest.mark.parametrize("any_postgres", [15, 18], indirect=True)
def test_pg_stat_statements_comes_ages_and_forgets(any_postgres: PostgresServer, watch: Watch, tmp_path: Path) -> None:
    """Missing, too old, old, new, reset: only its own series follow, each from the next scrape on, under one name."""
    server = any_postgres
    monitor_on(server)
    server.execute("CREATE DATABASE ages")
    steps = {
        "CREATE EXTENSION pg_stat_statements VERSION '1.7'": "version",
        "ALTER EXTENSION pg_stat_statements UPDATE TO '1.8'": "",
        "ALTER EXTENSION pg_stat_statements UPDATE": "",
        "DROP EXTENSION pg_stat_statements": "extension",
        "CREATE EXTENSION pg_stat_statements": "",
    }
    config = write_config(tmp_path, server.dsn("ages", MONITOR), collectors=STATEMENTS)
    try:
        with running(config) as exporter, watch(exporter.port) as story:
            for statement, reason in steps.items():
                server.execute(statement, "ages")
                answer = exporter.scrape()
                labels = [dict(labels) for name, labels in answer if name == "pg_scrape_collector_skipped"]
                skipped = [one["reason"] for one in labels if one["collector"] == "statements"]
                assert skipped == ([reason] if reason else []), statement
                assert bool(answer.labelled("pg_stat_statements_calls_total", "queryid")) is not bool(reason)
                story.wait()
            marked = "SELECT count(*) FROM pg_class AS marked"
            for _ in range(5):
                server.execute(marked, "ages")
            story.wait()
            with story.fault():
                server.execute("SELECT pg_stat_statements_reset()", "ages")
                server.execute(marked, "ages")
            story.wait()
            story.assert_unbroken("statements")
            ((key,),) = server.execute("SELECT queryid FROM pg_stat_statements WHERE query ~ 'marked$'", "ages")
            counted = story.one(f'pg_stat_statements_calls_total{{queryid="{key}"}}')
            assert [counted[moment] for moment in (min(counted), max(counted))] == [5, 1]
            resets = story.one("pg_stat_statements_stats_reset_timestamp_seconds")
            ((when,),) = server.execute("SELECT extract(epoch FROM stats_reset) FROM pg_stat_statements_info", "ages")
            assert resets[max(resets)] == pytest.approx(float(when))
            assert len(set(resets.values())) == 2, "it was reset once while the metric was there"
    finally:
        server.execute("DROP DATABASE ages WITH (FORCE)")


@pytest.fixture
def others(server: PostgresServer) -> Iterator[None]:
    """Two more databases, which the background comes to after the shop, and in this order."""
    for name in ("doomed", "later"):
        server.execute(f"CREATE DATABASE {name} TEMPLATE shop")
    yield
    for name in ("doomed", "later"):
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("busy", ["shop", "doomed"], ids=["between discovery and query", "in its query"])
def test_a_database_is_dropped(
    busy: str, server: PostgresServer, background: dict[str, object], watch: Watch, tmp_path: Path
) -> None:
    """The background has found it, waits for a lock, there or elsewhere, and it is gone: forgotten, and no failure."""
    lock = "LOCK TABLE shelf IN ACCESS EXCLUSIVE MODE"
    waiting = "SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database WHERE NOT granted AND datname = %s"
    config = write_config(tmp_path, server.dsn("shop", MONITOR), **background)
    with running(config) as exporter, watch(exporter.port) as story:
        with psycopg.connect(server.dsn("later")) as later:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(server.dsn(busy)) as holder:
                holder.execute(lock)
                wait_until(lambda: holder.execute(waiting, (busy,)).fetchall() != [], "the background waits there")
                # Its round does not end before this lock does.
                later.execute(lock)
                server.execute("DROP DATABASE doomed WITH (FORCE)")
                story.wait()
            told = {"collector": "shelf", "datname": "doomed"}
            wait_until(
                lambda: exporter.scrape().value("pg_scrape_collector_success", **told) is None, "it is forgotten"
            )
            story.wait()
        if busy == "shop":
            assert 'database "doomed" does not exist' in server.log(), "it was asked for after its end"
        story.wait()
        story.assert_unbroken()
        success = story.success()
        for key in product(("shelf", "tray"), ("doomed", "later", "postgres", "shop")):
            assert set(success[key].values()) == {1.0}, key
        _, log = exporter.stop()
    assert "level=error" not in log
    assert not [line for line in log.splitlines() if "shelf in" in line or "tray in" in line], "no failure is logged"


def test_a_table_that_the_background_waits_for(
    server: PostgresServer, background: dict[str, object], watch: Watch, tmp_path: Path
) -> None:
    """Scrapes are answered meanwhile with what was read before, whose age says so; then it is read anew."""
    config = write_config(tmp_path, server.dsn("shop", MONITOR), **background)
    with running(config) as exporter, watch(exporter.port) as story:
        with psycopg.connect(server.dsn("shop")) as holder:
            holder.execute("UPDATE shelf SET goods = 4")
            holder.execute("LOCK TABLE shelf IN ACCESS EXCLUSIVE MODE")
            story.wait(3)
            holder.commit()
        wait_until(lambda: exporter.scrape().labelled("shelf_goods", "datname")["shop"] == 4, "it is read anew")
        story.wait()
        story.assert_unbroken()
        goods, ages = (
            story.one('shelf_goods{datname="shop"}'),
            'pg_scrape_collector_cache_age_seconds{collector="shelf",datname="shop"}',
        )
        assert list(dict.fromkeys(goods[moment] for moment in sorted(goods))) == [3, 4]
        assert max(story.one(ages).values()) > 3, "two scrapes saw the same reading"
    server.execute("UPDATE shelf SET goods = 3", "shop")


@pytest.mark.parametrize("question", [b"has_database_privilege", b"AS shelf"], ids=["discovery", "collector"])
def test_a_server_that_is_heard_no_more(
    question: bytes, server: PostgresServer, background: dict[str, object], watch: Watch, tmp_path: Path
) -> None:
    """The connection of the background stays open and silent: it is left, and the work goes on with another."""
    background["collectors"] = {**STATEMENTS, "shelf": {"statement_timeout": "1s"}}
    with wire_to(server.port) as wire:
        config = write_config(tmp_path, f"host=127.0.0.1 port={wire.port} dbname=shop user={MONITOR}", **background)
        with running(config) as exporter, watch(exporter.port) as story:
            wire.until = question
            assert wire.silent.wait(30)
            server.execute("UPDATE shelf SET goods = 5", "shop")
            try:
                wait_until(lambda: exporter.scrape().labelled("shelf_goods", "datname")["shop"] == 5, "it goes on", 60)
            finally:
                server.execute("UPDATE shelf SET goods = 3", "shop")
            story.wait()
            story.assert_unbroken()
            if question == b"AS shelf":
                assert set(story.success()[("tray", "shop")].values()) == {1.0}, "it harmed no other collector"


def test_a_resting_session_that_is_heard_no_more(server: PostgresServer, background: dict[str, object]) -> None:
    """That of the background, and that of the scrapes: each is left, and asked in its place is another, at once."""
    with wire_to(server.port) as wire:
        dsn = f"host=127.0.0.1 port={wire.port} dbname=shop user={MONITOR}"
        folders = tuple(background["collector_folders"])  # type: ignore[arg-type,var-annotated]
        config = Config(dsn=dsn, databases=Databases(include=("shop",)), collector_folders=folders)
        exporter = Exporter(config.own(), enabled(config, collectors(config), ""))  # type: ignore[arg-type]
        try:
            exporter.slow.run_due()
            exporter.observe(10)
            for entry in exporter.slow.entries():
                entry.due = entry.welcome = 0.0
            wire.until = b"SHOW"
            exporter.slow.run_due()
            assert wire.silent.is_set()
            assert not [entry.place for entry in exporter.slow.entries() if entry.last.failed]
            wire.silent.clear()
            wire.until = b"SHOW"
            run = exporter.observe(10)
            assert wire.silent.is_set()
            assert run.answered
            assert not [name for name, outcome in run.outcomes.items() if outcome.failed]
        finally:
            exporter.close()


@contextlib.contextmanager
def pooler(program: str, server: PostgresServer, **settings: object) -> Iterator[str]:
    """A PgBouncer in transaction mode; yields a connection string without database and user."""
    # Not pytest's tmp_path: its 0700 parents shut out the unprivileged pooler.
    folder, port = Path(tempfile.mkdtemp(prefix="messwarte-pooler-")), free_port()
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "pool_mode": "transaction",
        "auth_type": "trust",
        "auth_file": folder / "users",
        **settings,
    }
    (folder / "users").write_text("".join(f'"{user}" ""\n' for user in (MONITOR, "clerk")))
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in lines.items())
    )
    command = [program, "-q", str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:
        folder.chmod(0o755)
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        place = f"host=127.0.0.1 port={port}"
        wait_until(lambda: _connects(f"{place} dbname=shop user=clerk"), "PgBouncer answers")
        yield place
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def _connects(dsn: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(dsn):
        return True
    return False


def test_behind_a_pooler_in_transaction_mode(
    need_program: Callable[[str, str], str],
    server: PostgresServer,
    background: dict[str, object],
    watch: Watch,
    tmp_path: Path,
) -> None:
    """Two server sessions, shared with three rivals of the same role: nothing is missing, no setting stays behind."""
    program = need_program("pgbouncer", "pgbouncer")
    seen: set[tuple[str, ...]] = set()
    names = ("statement_timeout", "lock_timeout", "search_path", "jit", "transaction_read_only")
    asked = f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}, pg_backend_pid()::text"
    stop = threading.Event()

    def rival(place: str) -> None:
        with psycopg.connect(f"{place} dbname=shop user={MONITOR}", prepare_threshold=None) as connection:
            while not stop.wait(0.02):
                seen.update(connection.execute(asked).fetchall())
                connection.commit()

    errors = server.log().count('prepared statement "pgstat_')
    with pooler(program, server, default_pool_size=2) as place:
        threads = [threading.Thread(target=rival, args=(place,)) for _ in range(3)]
        config = write_config(tmp_path, f"{place} dbname=shop user={MONITOR}", **background)
        with running(config) as exporter, watch(exporter.port) as story:
            for thread in threads:
                thread.start()
            try:
                story.wait(4)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            story.assert_unbroken()
            for name in ("shelf", "tray"):
                assert set(story.success()[(name, "shop")].values()) == {1.0}, name
    untouched = server.execute(asked.rpartition(",")[0], "shop")
    assert server.log().count('prepared statement "pgstat_') - errors <= 2, "each session tries it once"
    assert {row[:-1] for row in seen} == set(untouched)
    assert len({row[-1] for row in seen}) == 2, "they shared the sessions"
    wait_until(lambda: not sessions(server), "no session is left on the server")
