"""Query names: where they come from, and that there are never too many."""

import asyncio
import re
import threading
from typing import Any

import pytest
from psycopg import sql as composed

import erp_metrics
from erp_metrics import measure, sql
from erp_metrics.context import block_of, current
from erp_metrics.measure import Recorder
from tests.unit.erp_metrics_rig import Rig, rigged


def name_of(recorder: Recorder, statement: Any) -> str | None:
    """Return the name that a statement counts under."""
    series = recorder.series(statement, block_of(current.get()))
    return None if series is None else series.name


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
        ("WITH a AS (SELECT 1 FROM y), B (n) AS MATERIALIZED (SELECT 1 FROM x) SELECT * FROM b, a", "select_y"),
        ('WITH RECURSIVE "A" AS (SELECT 1 FROM lager.y) SELECT * FROM "A" WHERE EXISTS (SELECT FROM z)', "select_z"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "select"),
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
    assert (sql.comment_name(text) or sql.derive(text)) == name


def test_a_hostile_statement_costs_little_and_names_something() -> None:
    for text in ("SELECT " + "(" * 100_000, "/*" * 50_000, "$a$" * 30_000, "'" * 99_999, "WITH " * 20_000):
        assert sql.derive(text)


def test_every_kind_of_statement_has_a_text() -> None:
    """What psycopg takes: str, bytes, psycopg.sql, and template strings by their `strings`."""
    identifier = composed.SQL("SELECT 1 FROM {}").format(composed.Identifier("lager"))
    template = type("Template", (), {"strings": ("SELECT 1 FROM lager WHERE id = ", "")})()
    for statement in ("SELECT 1 FROM lager", b"SELECT 1 FROM lager", identifier, template):
        assert name_of(Rig().recorder, statement) == "select_lager"


def test_the_first_names_win_without_an_allow_list() -> None:
    recorder = Rig(2).recorder
    assert [name_of(recorder, f"SELECT 1 FROM t{number % 4}") for number in range(6)] == [  # noqa: S608
        "select_t0",
        "select_t1",
        "other",
        "other",
        "select_t0",
        "select_t1",
    ]


def test_the_allow_list_decides() -> None:
    recorder = Rig().recorder
    recorder.allow(["select_a", "suche"], {})
    with erp_metrics.query("suche"):
        assert name_of(recorder, "SELECT 1 FROM b") == "suche"
        assert name_of(recorder, "") is None
    with erp_metrics.query("unheard of"):
        assert name_of(recorder, "SELECT 1 FROM a") == "other"
    assert [name_of(recorder, "SELECT 1 FROM a"), name_of(recorder, "SELECT 1 FROM b")] == ["select_a", "other"]


def test_statements_are_named_by_text_or_pattern() -> None:
    """White space aside; a block and a comment come first, what is named nowhere is derived as far as the bound."""
    recorder = Rig(1).recorder
    recorder.allow(
        (),
        {
            "SELECT 1 FROM lager WHERE id = %s;": "lager_zeile",
            re.compile(r"\bFROM charge\b"): "charge",
            re.compile("FROM"): "rest",
        },
    )
    assert name_of(recorder, "SELECT 1\n  FROM lager WHERE id = %s") == "lager_zeile"
    assert name_of(recorder, "SELECT 1 FROM lager WHERE id = 7") == "rest"
    assert name_of(recorder, "SELECT 1 FROM charge") == "charge"
    assert name_of(recorder, "/* name: mine */ SELECT 1 FROM charge") == "mine"
    with erp_metrics.query("charge"):
        assert name_of(recorder, "SELECT 1 FROM lager") == "charge"
    assert name_of(recorder, "UPDATE lager SET id = 1") == "other"


def test_what_gave_the_names_is_counted() -> None:
    """So that one sees how much is `other`, and how much only derived."""
    with rigged(2) as rig:
        assert rig.sources() == {}
        assert rig.value("erp_db_query_names_total", source="other") == 0
        erp_metrics.instrument(None, statements={"SELECT 1 FROM a": "a", re.compile("FROM b"): "b"})
        for text in ("/* name: x */ SELECT 1", "SELECT 1 FROM a", "SELECT 1 FROM b", "SELECT 1 FROM b", "UPDATE c"):
            measure.done(text, 0.1, 0)
        with erp_metrics.query("x"):
            measure.done("SELECT 1 FROM a", 0.1, 0)
        for text in ("DELETE FROM c", "DELETE FROM d", "DELETE FROM d"):
            measure.done(text, 0.1, 0)
        assert rig.sources() == {"comment": 1, "declared": 3, "derived": 1, "block": 1, "other": 3}
        assert rig.queries() == {"x": 2, "a": 1, "b": 2, "update_c": 1, "other": 3}


def test_many_different_texts_leave_no_more_behind_than_the_bound() -> None:
    recorder = Rig(100).recorder
    for number in range(5000):
        recorder.series(f"SELECT {number} FROM lager", None)  # noqa: S608
        recorder.series("SELECT 1", f"block {number}")
    assert len(recorder._by_text) <= 2000
    assert len(recorder._by_block) <= 2000
    assert len(recorder.names._taken) == 100


def test_a_blocks_name_is_its_own_in_tasks_and_threads() -> None:
    recorder = Rig().recorder
    found: dict[str, str | None] = {}
    both_in = asyncio.Barrier(2)

    async def task(name: str) -> None:
        async with erp_metrics.query(name):
            await both_in.wait()
            found[name] = name_of(recorder, "SELECT 1")

    async def together() -> None:
        await asyncio.gather(task("a"), task("b"))

    with erp_metrics.query("outer"):
        asyncio.run(together())
        thread = threading.Thread(target=lambda: found.update(thread=name_of(recorder, "SELECT 1")))
        thread.start()
        thread.join()
        with erp_metrics.query("inner"):
            found["inner"] = name_of(recorder, "SELECT 1")
        found["outer"] = name_of(recorder, "SELECT 1")
    assert found == {"a": "a", "b": "b", "thread": "select", "inner": "inner", "outer": "outer"}
