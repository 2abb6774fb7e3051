"""Every way to run a query with psycopg, on a real server: counted once, under its name, with its real duration."""

import asyncio
import contextlib
import threading
from collections.abc import Generator, Iterator
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql

import erp_metrics
from tests.integration.conftest import wait_until
from tests.unit.erp_metrics_rig import Rig, rigged

TABLE = "CREATE TABLE lager (id int PRIMARY KEY, ort text)"


@pytest.fixture
def rig(database: str) -> Iterator[Rig]:
    """Measuring with a registry of its own; the database has the table `lager` with three rows."""
    with psycopg.connect(database) as connection:
        connection.execute(TABLE)
        connection.execute("INSERT INTO lager VALUES (1, 'Halle 1'), (2, 'Halle 2'), (3, 'Kühlhaus')")
    with rigged() as found:
        yield found


def test_each_way_to_run_a_statement_counts_once(rig: Rig, database: str) -> None:
    """Connection and cursor, prepared, client-side, raw, composed, with several statements in one."""
    with psycopg.connect(database) as connection:
        connection.execute("SELECT 1 FROM lager")
        connection.execute(b"SELECT 1 FROM lager WHERE id = %s", (1,), prepare=True)
        connection.cursor().execute(sql.SQL("SELECT {} FROM {}").format(1, sql.Identifier("lager")))
        psycopg.ClientCursor(connection).execute("SELECT 1 FROM lager WHERE id = %s", (1,))
        psycopg.RawCursor(connection).execute("SELECT 1 FROM lager WHERE id = $1", (1,))
        connection.execute("SELECT 1 FROM lager; SELECT 2 FROM lager")
        for _ in range(20):
            connection.execute("/* name: oft */ SELECT ort FROM lager WHERE id = %s", (1,))
        with connection.transaction():
            connection.execute("DELETE FROM lager WHERE id = 9")
    assert rig.queries() == {"select_lager": 6, "oft": 20, "delete_lager": 1}
    assert rig.endpoints() == {"none": 27}


def test_each_way_to_run_a_statement_counts_once_with_asyncio(rig: Rig, database: str) -> None:
    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await connection.execute("SELECT 1 FROM lager")
            async with connection.cursor() as cursor:
                await cursor.execute("SELECT 1 FROM lager WHERE id = %s", (1,), prepare=True)
                await cursor.executemany("INSERT INTO lager VALUES (%s)", [(4,), (5,)])
                assert [row async for row in cursor.stream("SELECT id FROM lager")] == [(n,) for n in range(1, 6)]
                async with cursor.copy("COPY lager (id) FROM STDIN") as copy:
                    await copy.write("6\n7\n")
            async with connection.cursor("portion") as portions:
                await portions.execute("SELECT id FROM lager")
                assert len([row async for row in portions]) == 7

    asyncio.run(run())
    assert rig.queries() == {"select_lager": 4, "insert_lager": 1, "copy_lager": 1}
    assert rig.rows() == {"select_lager": 3 + 1 + 5 + 7, "insert_lager": 2, "copy_lager": 2}


def test_a_psycopg_whose_execute_takes_more(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known is passed on, and statements are counted all the same, in a pipeline too."""
    given: list[str] = []
    execute = psycopg.Cursor.execute

    def later_execute(self: Any, query: Any, params: Any = None, *, label: str = "none", **more: Any) -> Any:
        given.append(label)
        return execute(self, query, params, **more)

    monkeypatch.setattr(psycopg.Cursor, "execute", later_execute)
    with rigged() as rig, psycopg.connect(database) as connection:
        cast("Any", connection.cursor()).execute("SELECT relname FROM pg_class WHERE oid = %s", (1259,), label="new")
        with connection.pipeline():
            connection.execute("SELECT relname FROM pg_class WHERE oid IN (1247, 1249)")
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT 1 FROM weg")
        assert given == ["new", "none", "none"]
        assert rig.queries() == {"select_pg_class": 2, "select_weg": 1}
        assert rig.rows() == {"select_pg_class": 3}
        assert rig.errors() == {("select_weg", "42"): 1}


def test_executemany_stream_and_copy_count_once(rig: Rig, database: str) -> None:
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO lager VALUES (%s, %s)", [(number, "x") for number in range(10, 60)])
        assert sum(1 for _ in cursor.stream("SELECT id FROM lager")) == 53
        with cursor.copy("COPY lager (id) FROM STDIN") as copy:
            copy.write("100\n101\n")
        assert cursor.rowcount == 2
        with cursor.copy("COPY (SELECT id FROM lager) TO STDOUT") as copy:
            assert len(list(copy.rows())) == 55
    assert rig.queries() == {"insert_lager": 1, "select_lager": 1, "copy_lager": 1, "copy": 1}
    assert rig.rows() == {"insert_lager": 50, "select_lager": 53, "copy_lager": 2, "copy": 55}


def test_statements_of_a_pipeline_count_once_each_with_their_errors(rig: Rig, database: str) -> None:
    with psycopg.connect(database) as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT ort FROM lager WHERE id = %s", (number,)) for number in (1, 2)]
            assert [cursor.fetchone() for cursor in cursors] == [("Halle 1",), ("Halle 2",)]
            connection.cursor().executemany("INSERT INTO lager VALUES (%s)", [(8,), (9,)])
        with pytest.raises(psycopg.errors.UndefinedTable), connection.pipeline():
            connection.execute("SELECT 1 FROM weg")
    assert rig.queries() == {"select_lager": 2, "insert_lager": 1, "select_weg": 1}
    assert rig.rows() == {"select_lager": 2, "insert_lager": 2}
    assert rig.errors() == {("select_weg", "42"): 1}


def test_rows_that_executemany_returns(rig: Rig, database: str) -> None:
    """All of them, in a pipeline of its own and in one of the application's; the next statement's are its own."""
    insert = "INSERT INTO lager VALUES (%s), (%s) RETURNING id"
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        cursor.executemany(insert, [(10, 11), (12, 13), (14, 15)], returning=True)
        with connection.pipeline():
            cursor.executemany(insert, [(20, 21), (22, 23)], returning=True)
        with erp_metrics.query("ohne"):
            cursor.executemany("UPDATE lager SET ort = %s WHERE id >= 10", [("a",), ("b",)])
            cursor.execute("DELETE FROM lager WHERE id >= 10")
    assert rig.queries() == {"insert_lager": 2, "ohne": 2}
    assert rig.rows() == {"insert_lager": 10, "ohne": 30}


def test_what_fails_counts_with_its_duration(rig: Rig, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT 1 FROM weg")
        connection.execute("SET statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("/* name: lang */ SELECT pg_sleep(60)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.cursor().executemany("INSERT INTO lager VALUES (%s)", [(50,), (1,)])
        with pytest.raises(psycopg.errors.UndefinedTable), connection.cursor().copy("COPY weg FROM STDIN"):
            pass
        with pytest.raises(psycopg.errors.UndefinedTable):
            next(connection.cursor().stream("/* name: strom */ SELECT 1 FROM weg"))
        with pytest.raises(psycopg.errors.UndefinedTable), connection.cursor("portion", withhold=True) as portion:
            portion.execute("/* name: portion */ SELECT 1 FROM weg")
    names = ("select_weg", "set", "lang", "insert_lager", "copy_weg", "strom", "portion")
    assert rig.queries() == dict.fromkeys(names, 1)
    classes = {"lang": "57", "insert_lager": "23"}
    assert rig.errors() == {(name, classes.get(name, "42")): 1 for name in names if name != "set"}
    assert 0.2 <= rig.seconds("lang") < 1


def test_a_copy_that_anothers_error_aborts_has_failed(rig: Rig, database: str) -> None:
    """Once, as by an error of the application's own, and the other's class is not its."""
    with contextlib.ExitStack() as stack:
        one, two, three = (stack.enter_context(psycopg.connect(database, autocommit=True)) for _ in range(3))
        with (
            pytest.raises(psycopg.errors.UndefinedTable),
            one.cursor().copy("/* name: aussen */ COPY lager (id) FROM STDIN"),
            two.cursor().copy("/* name: innen */ COPY lager (id) FROM STDIN"),
        ):
            three.execute("SELECT 1 FROM weg")
        own = one.cursor().copy("/* name: selbst */ COPY lager (id) FROM STDIN")
        with pytest.raises(psycopg.errors.UniqueViolation), own as copy:
            copy.write("1\n")
    assert rig.queries() == dict.fromkeys(("aussen", "innen", "select_weg", "selbst"), 1)
    assert rig.errors() == {
        ("select_weg", "42"): 1,
        ("aussen", "none"): 1,
        ("innen", "none"): 1,
        ("selbst", "23"): 1,
    }


def test_a_copy_that_anothers_error_aborts_has_failed_with_asyncio(rig: Rig, database: str) -> None:
    """A task that is cancelled in a query gives up both."""

    async def run(statement: str) -> None:
        async with (
            await psycopg.AsyncConnection.connect(database) as one,
            await psycopg.AsyncConnection.connect(database) as two,
            one.cursor().copy("COPY lager (id) FROM STDIN"),
        ):
            await two.execute(statement)

    with pytest.raises(psycopg.errors.UndefinedTable):
        asyncio.run(run("SELECT 1 FROM weg"))
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(run("/* name: lang */ SELECT pg_sleep(60)"), 0.5))
    assert rig.errors() == {
        ("select_weg", "42"): 1,
        ("copy_lager", "none"): 1,
        ("lang", "cancelled"): 1,
        ("copy_lager", "cancelled"): 1,
    }


def test_a_query_that_waits_for_a_lock_is_as_slow_as_it_was(rig: Rig, database: str) -> None:
    """It crosses the bucket bound of 1 s, which the alerts count by."""
    with psycopg.connect(database) as holder, psycopg.connect(database) as waiter:
        holder.execute("LOCK TABLE lager")
        thread = threading.Thread(target=waiter.execute, args=("/* name: wartet */ SELECT 1 FROM lager",))
        thread.start()
        with psycopg.connect(database) as watcher:
            since = "SELECT now() - query_start > '1.05 s' FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

            def waited() -> bool:
                watcher.rollback()
                return (True,) in watcher.execute(since).fetchall()

            wait_until(waited, "the query has waited for more than a second")
        holder.rollback()
        thread.join()
    assert rig.value("erp_db_query_duration_seconds_bucket", query_name="wartet", le="1.0") == 0
    assert rig.value("erp_db_query_duration_seconds_bucket", query_name="wartet", le="2.5") == 1


def test_rows_fetched_later_are_the_querys_time(rig: Rig, database: str) -> None:
    """Server-side cursors and streams: the time of fetching, and not what the application does between."""
    slow = "SELECT id, pg_sleep(0.1) FROM lager"
    with psycopg.connect(database) as connection:
        with connection.cursor("portion") as portion:
            portion.itersize = 1
            portion.execute(f"/* name: portion */ {slow}")
            assert rig.queries() == {}
            assert len(list(portion)) == 3
            assert portion.fetchall() == []
            portion.execute("/* name: wieder */ SELECT 1 FROM lager")
        assert rig.queries() == {"portion": 1, "wieder": 1}
        assert 0.3 <= rig.seconds("portion") < 1
        idle = threading.Event()
        for _ in connection.cursor().stream(f"/* name: strom */ {slow}"):
            idle.wait(0.5)
        assert 0.3 <= rig.seconds("strom") < 1


def test_an_unfinished_stream_ends_its_query(rig: Rig, database: str) -> None:
    with psycopg.connect(database) as connection:
        stream = connection.cursor().stream("/* name: strom */ SELECT id FROM lager")
        next(stream)
        cast("Generator[Any]", stream).close()
        assert connection.execute("SELECT 5").fetchone() == (5,)
    assert rig.queries() == {"strom": 1, "select": 1}


def test_many_threads_and_tasks_lose_nothing(rig: Rig, database: str) -> None:
    """Each under its own name."""

    def work(name: str) -> None:
        with psycopg.connect(database, autocommit=True) as connection, erp_metrics.query(name):
            for _ in range(200):
                connection.execute("SELECT 1")

    async def task(name: str) -> None:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            for _ in range(100):
                async with erp_metrics.query(name):
                    await connection.execute("SELECT 1")
                await connection.execute("SELECT 1 FROM lager")

    async def tasks() -> None:
        await asyncio.gather(*(task(f"task_{number}") for number in range(4)))

    threads = [threading.Thread(target=work, args=(f"thread_{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join()
    expected = {f"thread_{number}": 200.0 for number in range(4)} | {f"task_{number}": 100.0 for number in range(4)}
    assert rig.queries() == expected | {"select_lager": 400}
    assert rig.endpoints() == {"none": 1600}
