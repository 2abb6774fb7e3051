"""Query names: where they come from, and that there are never too many."""

import asyncio
import threading

import pytest
from psycopg import sql as composed

import erp_metrics
from erp_metrics import sql
from erp_metrics.names import Names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/* name: artikel_suche */ SELECT 1 FROM artikel", "artikel_suche"),
        ("\n  /*name:a.b-c*/DELETE FROM x", "a.b-c"),
        ("select * from Artikel", "select_artikel"),
        ("SELECT now()", "select"),
        ("SELECT extract(year FROM datum), (SELECT 1 FROM lager) FROM public.lagerbewegung", "select_lagerbewegung"),
        ('SELECT 1 FROM "Erp"."Lager Bewegung" WHERE x = \'FROM y\'', "select_lager_bewegung"),
        ("SELECT a IS DISTINCT FROM b FROM charge", "select_charge"),
        ("SELECT * FROM (SELECT 1 FROM auftrag) AS x", "select_auftrag"),
        ("(SELECT 1 FROM a) UNION SELECT 2 FROM b", "select_a"),
        ("INSERT INTO lagerbewegung (id) SELECT id FROM x", "insert_lagerbewegung"),
        ("UPDATE ONLY charge SET status = 'x' FROM artikel", "update_charge"),
        ("DELETE FROM lager", "delete_lager"),
        ("MERGE INTO lager USING x ON true", "merge_lager"),
        ("WITH neu AS (SELECT 1 FROM y) INSERT INTO z SELECT * FROM neu", "insert_z"),
        ("-- FROM nowhere\nSELECT $$ FROM a $$ FROM b", "select_b"),
        ("COPY artikel (id) FROM STDIN", "copy_artikel"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY mv_x", "refresh_mv_x"),
        ("TRUNCATE TABLE ONLY charge", "truncate_charge"),
        ("SET statement_timeout = 5", "set"),
        ("'nothing", "nothing"),
        ("?", "other"),
        ('"x" y', "other"),
        ("", None),
        (" ; ", None),
    ],
)
def test_names_are_derived(text: str, name: str | None) -> None:
    assert sql.derive(text) == name


def test_a_hostile_statement_costs_little_and_names_something() -> None:
    for text in ("SELECT " + "(" * 100_000, "/*" * 50_000, "$a$" * 30_000, "'" * 99_999, "WITH " * 20_000):
        assert sql.derive(text)


def test_every_kind_of_statement_has_a_text() -> None:
    """What psycopg takes: str, bytes, psycopg.sql, and template strings by their `strings`."""
    identifier = composed.SQL("SELECT 1 FROM {}").format(composed.Identifier("lager"))
    template = type("Template", (), {"strings": ("SELECT 1 FROM lager WHERE id = ", "")})()
    for statement in ("SELECT 1 FROM lager", b"SELECT 1 FROM lager", identifier, template):
        assert Names(5).of(statement) == "select_lager"


def test_the_first_names_win_without_an_allow_list() -> None:
    names = Names(2)
    assert [names.of(f"SELECT 1 FROM t{number % 4}") for number in range(6)] == [  # noqa: S608
        "select_t0",
        "select_t1",
        "other",
        "other",
        "select_t0",
        "select_t1",
    ]


def test_the_allow_list_decides() -> None:
    names = Names(100)
    names.allow(["select_a", "suche"])
    with erp_metrics.query("suche"):
        assert names.of("SELECT 1 FROM b") == "suche"
        assert names.of("") is None
    with erp_metrics.query("unheard of"):
        assert names.of("SELECT 1 FROM a") == "other"
    assert [names.of("SELECT 1 FROM a"), names.of("SELECT 1 FROM b")] == ["select_a", "other"]


def test_many_different_texts_leave_no_more_behind_than_the_bound() -> None:
    names = Names(100)
    for number in range(5000):
        names.of(f"SELECT {number} FROM lager")  # noqa: S608
    assert len(names._derived) <= 2000
    assert names._taken == {"select_lager"}


def test_a_blocks_name_is_its_own_in_tasks_and_threads() -> None:
    names = Names(100)
    found: dict[str, str | None] = {}
    both_in = asyncio.Barrier(2)

    async def task(name: str) -> None:
        async with erp_metrics.query(name):
            await both_in.wait()
            found[name] = names.of("SELECT 1")

    async def together() -> None:
        await asyncio.gather(task("a"), task("b"))

    with erp_metrics.query("outer"):
        asyncio.run(together())
        thread = threading.Thread(target=lambda: found.update(thread=names.of("SELECT 1")))
        thread.start()
        thread.join()
        with erp_metrics.query("inner"):
            found["inner"] = names.of("SELECT 1")
        found["outer"] = names.of("SELECT 1")
    assert found == {"a": "a", "b": "b", "thread": "select", "inner": "inner", "outer": "outer"}
