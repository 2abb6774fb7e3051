"""The ERP without its database: configuration, latencies, progress, and what the plan draws."""

import datetime
import io
import random
import statistics
from collections import Counter
from pathlib import Path

import pytest

from erp import ErpError, config, lives, queries, rows
from erp.calendar_days import Days, times_of_day
from erp.generate import schema
from erp.latencies import Latencies
from erp.models import Base
from erp.plan import SIZES, Plan, Size
from erp.progress import Progress

UNTIL = datetime.date(2026, 11, 24)
TINY = Size(movements=5_000, articles=100, suppliers=5, days=120)


def movements(plan: Plan) -> list[list[str]]:
    """Return the movements' columns."""
    text = b"".join(rows.blocks(plan, "lagerbewegung")).decode()
    return [line.split("\t") for line in text.splitlines()]


def test_configuration_comes_from_the_environment(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("x y\n")
    environment = {
        "ERP_DATABASE": "host=10.0.0.5 dbname=erp user=erp_app",
        "ERP_DATABASE_PASSWORD_FILE": str(secret),
        "ERP_LISTEN": "10.0.0.7",
        "ERP_POOL_SIZE": "3",
    }
    found = config.load(environment)
    assert (found.port, found.metrics_port, found.pool_size, found.password()) == (8000, 8001, 3, "x y")
    # Prometheus may be on another host, so the metrics listen where the server does.
    assert found.metrics_listen == "10.0.0.7"
    secret.write_text("new")
    assert found.password() == "new"
    assert config.load({}).metrics_listen == "127.0.0.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ERP_PORT", "0"),
        ("ERP_PORT", "8001"),
        ("ERP_METRICS_PORT", "70000"),
        ("ERP_POOL_SIZE", "many"),
        ("ERP_DATABASE", "host"),
        ("ERP_DATABASE", "dbname=erp password=secret"),
        ("ERP_DATABASE_PASSWORD_FILE", "/nonexistent/file"),
    ],
)
def test_unusable_configuration_is_named_and_shows_no_secret(name: str, value: str) -> None:
    with pytest.raises(ErpError, match=name) as caught:
        config.load({name: value})
    assert "secret" not in str(caught.value)


def test_percentiles_are_exact_to_one_per_cent() -> None:
    rng = random.Random(7)  # noqa: S311
    latencies, values = Latencies(), [rng.lognormvariate(-4, 1.5) for _ in range(20_000)]
    for value in values:
        latencies.add(value)
    cuts = statistics.quantiles(values, n=100)
    for percent in (50, 95, 99):
        assert cuts[percent - 1] * 0.999 <= latencies.percentile(percent) <= cuts[percent - 1] * 1.011
    assert latencies.summary()["max"] == round(max(values), 6)
    assert Latencies().summary() == {"p50": 0, "p95": 0, "p99": 0, "max": 0}
    single = Latencies()
    single.add(0.0)
    assert single.percentile(99) == 0


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock = iter([0.0, 1.0, 1.05, 6.0] * 2)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    for out, shown in ((Terminal(), 2), (io.StringIO(), 1)):
        progress = Progress("copy", 1000, "rows", out=out)
        for _ in range(3):
            progress.add(250)
        progress.end()
        assert out.getvalue().count("copy:") == shown
        assert " 75%, 750 rows, 125/s, 2 s left" in out.getvalue()
    assert "\r" not in out.getvalue()


def test_the_schema_is_in_two_parts_and_has_no_index() -> None:
    """The generator adds constraints after the data; indices come with the migrations."""
    tables, constraints = schema()
    assert tables.count(b"CREATE TABLE") == len(Base.metadata.tables) == 6
    assert b"KEY" not in tables
    assert all(one.startswith(b"ALTER TABLE ") and one.endswith(b";") for one in constraints)
    assert not any(word in part for part in (tables, *constraints) for word in (b"CREATE INDEX", b"UNIQUE"))


def test_rows_have_the_columns_of_the_models() -> None:
    assert {name: set(columns) for name, columns in rows.COLUMNS.items()} == {
        table.name: set(table.columns.keys()) for table in Base.metadata.tables.values()
    }
    plan = Plan(TINY, 1, UNTIL)
    for table, columns in rows.COLUMNS.items():
        text = b"".join(rows.blocks(plan, table)).decode()
        assert {line.count("\t") + 1 for line in text.splitlines()} == {len(columns)}


def test_every_query_tells_its_name() -> None:
    assert {*queries.QUERIES, queries.ARTIKEL_DETAIL} == queries.NAMES
    for name, query in queries.QUERIES.items():
        assert query.startswith(f"/* name: {name} */ ")


def test_the_sizes_are_those_that_were_asked_for() -> None:
    assert {name: size.movements for name, size in SIZES.items()} == {
        "small": 100_000,
        "medium": 2_000_000,
        "large": 20_000_000,
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_plan_has_exactly_its_size(seed: int) -> None:
    found = movements(Plan(TINY, seed, UNTIL))
    assert [int(row[0]) for row in found] == list(range(1, TINY.movements + 1))
    times = [row[1] for row in found]
    assert times == sorted(times)
    assert "2026-07-27" <= times[0] < times[-1] < "2026-11-24"


def test_the_same_call_draws_the_same_and_another_seed_another() -> None:
    first, again, other = (movements(Plan(TINY, seed, UNTIL)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_no_life_takes_out_more_than_there_is() -> None:
    """In thousandths, at every step and in every store."""
    for life in lives.lives(random.Random(3)):  # noqa: S311
        stock: Counter[str] = Counter()
        day = 0
        for step, _, text in life.steps:
            store, _, amount = text.split("\t")
            assert step >= day
            day = step
            stock[store] += round(float(amount) * 1000)
            assert stock[store] >= 0
            assert float(amount) != 0
            assert not life.whole or float(amount).is_integer()
        assert day <= lives.LONGEST_DAYS
        assert float(life.lot_text) * 1000 == life.lot


def test_patterns_are_where_their_kind_begins() -> None:
    found = lives.lives(random.Random(3))  # noqa: S311
    for made in (False, True):
        for whole in (False, True):
            begin = lives.kind(made, whole)
            own = found[begin : begin + lives.PER_KIND + 1]
            assert {(life.made, life.whole) for life in own} == {(made, whole)}
            assert len(own[-1].steps) == 1
            assert all(len(life.steps) > 1 for life in own[:-1])


def test_working_days_leave_out_weekends_and_holidays() -> None:
    """From Wednesday, 23 December 2026: the next ones are 28, 29, 30 December and 4 January."""
    days = Days(datetime.date(2026, 12, 24), 10, 30)
    working, offset = days.after(9, weekends=False)
    assert [days.texts[working[offset + step]] for step in (1, 2, 3, 4)] == [
        "2026-12-28",
        "2026-12-29",
        "2026-12-30",
        "2027-01-04",
    ]
    every, offset = days.after(9, weekends=True)
    assert days.texts[every[offset + 2]] == "2026-12-25"


def test_work_is_done_by_day() -> None:
    times = times_of_day()
    assert times == sorted(times)
    share = sum("06:00:00" <= time < "22:00:00" for time in times) / len(times)
    assert 0.95 < share < 0.995
