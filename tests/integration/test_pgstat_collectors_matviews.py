"""The collector matviews beside the migration runner, which refreshes the views and notes it."""

from pathlib import Path

import pytest

from tests.integration.migrate_process import Runner
from tests.integration.pgstat_subject import Subject

LOG = ("USAGE ON SCHEMA messwarte", "SELECT ON messwarte.mv_refresh_log")
VIEWS = (
    "CREATE TABLE artikel AS SELECT n AS id, n % 3 AS kategorie FROM generate_series(1, 30) n",
    "CREATE MATERIALIZED VIEW je_kategorie AS SELECT kategorie, count(*) AS n FROM artikel GROUP BY kategorie",
    "CREATE UNIQUE INDEX ON je_kategorie (kategorie)",
    "CREATE SCHEMA berichte",
    'CREATE MATERIALIZED VIEW berichte."Ä <&> x" AS SELECT id FROM artikel WITH NO DATA',
    'CREATE UNIQUE INDEX ON berichte."Ä <&> x" (id)',
)


def test_without_a_log_only_whether_it_is_filled(subject: Subject) -> None:
    """PostgreSQL itself keeps no time of a refresh."""
    subject.do(*VIEWS)
    answer = subject.ask("matviews")
    names = ("schemaname", "relname")
    assert subject.shown(answer, "pg_matview_populated", *names) == {
        ("public", "je_kategorie"): 1,
        ("berichte", "Ä <&> x"): 0,
    }
    assert not subject.shown(answer, "pg_matview_refresh_timestamp_seconds", *names)


def test_refreshes_that_the_runner_noted(subject: Subject, tmp_path: Path) -> None:
    """Start, duration and rows of the last good refresh, and whether the newest failed, as the log has them."""
    subject.do(*VIEWS)
    runner = Runner(subject.server.dsn(subject.name), tmp_path)
    runner.run("refresh")
    runner.run("refresh", "je_kategorie")
    subject.do('DROP INDEX berichte."Ä <&> x_id_idx"')
    # Without its unique index it would keep its readers waiting, so the runner refuses and notes that.
    runner.run("refresh", "berichte.Ä <&> x", status=1)
    answer = subject.ask("matviews", grants=LOG)
    log = {
        view: subject.rows(
            "SELECT extract(epoch FROM started_at), seconds, rows FROM messwarte.mv_refresh_log "  # noqa: S608
            f"WHERE view = '{view}' AND error IS NULL ORDER BY id DESC LIMIT 1"
        )[0]
        for view in ("je_kategorie", "berichte.Ä <&> x")
    }
    for place, name in enumerate(("timestamp_seconds", "seconds", "rows")):
        shown = subject.shown(answer, f"pg_matview_refresh_{name}", "relname")
        wanted = {view.removeprefix("berichte."): float(row[place]) for view, row in log.items()}
        assert shown == pytest.approx(wanted, abs=1e-5), name
    assert subject.shown(answer, "pg_matview_refresh_rows", "relname") == {"je_kategorie": 3, "Ä <&> x": 30}
    assert subject.shown(answer, "pg_matview_refresh_failed", "relname") == {"je_kategorie": 0, "Ä <&> x": 1}
    unseen = subject.ask("matviews")
    assert not subject.shown(unseen, "pg_matview_refresh_failed", "relname")
    assert len(subject.shown(unseen, "pg_matview_populated", "relname")) == 2
