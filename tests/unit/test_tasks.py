"""Configuration, months and messages of the task queue."""

import datetime
from pathlib import Path

import pytest

from erp_tasks import config, events, job, reports
from erp_tasks.app import app, settings


def test_password_comes_from_its_file_and_is_quoted(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a/b:c@d %\n")
    found = config.load(
        {
            "ERP_TASKS_BROKER": "redis://erp_tasks@10.1.2.3:6379/0",
            "ERP_TASKS_RESULTS": "redis://erp_tasks@[fd00::1]:6379/1",
            "ERP_TASKS_REDIS_PASSWORD_FILE": str(secret),
        }
    )
    assert found.broker == "redis://erp_tasks:a%2Fb%3Ac%40d%20%25@10.1.2.3:6379/0"
    assert found.results == "redis://erp_tasks:a%2Fb%3Ac%40d%20%25@[fd00::1]:6379/1"


@pytest.mark.parametrize(
    ("name", "value"),
    [("ERP_TASKS_PORT", "0"), ("ERP_TASKS_CONCURRENCY", "two"), ("ERP_TASKS_BROKER", "amqp://h")],
)
def test_unusable_settings_are_named(name: str, value: str) -> None:
    with pytest.raises(config.ConfigError, match=name):
        config.load({name: value})


def test_visibility_outlasts_every_task_in_all_three_places() -> None:
    assert settings.visibility_timeout > settings.time_limit > settings.soft_time_limit
    assert app.conf.visibility_timeout == settings.visibility_timeout
    assert app.conf.broker_transport_options["visibility_timeout"] == settings.visibility_timeout
    assert app.conf.result_backend_transport_options["visibility_timeout"] == settings.visibility_timeout


@pytest.mark.parametrize("queue", ["reports", "imports", "exports"])
def test_task_names_lead_to_the_plans_queues(queue: str) -> None:
    route = app.amqp.router.route({}, f"backend.tasks.{queue}.anything")
    found = route["queue"]
    assert (found.name, found.exchange.name, found.routing_key) == (queue, queue, queue)


def test_month_ends_where_the_next_begins() -> None:
    assert reports.month_bounds("2026-12") == (datetime.date(2026, 12, 1), datetime.date(2027, 1, 1))
    assert reports.month_bounds("2024-02") == (datetime.date(2024, 2, 1), datetime.date(2024, 3, 1))
    for wrong in ("2026-13", "2026-1", "0000-01", "2026-10-01", ""):
        with pytest.raises(ValueError, match="monat"):
            reports.month_bounds(wrong)


def test_percent_is_unknown_until_the_whole_is_known() -> None:
    assert job.Snapshot.of({"state": "running"}).shown()["progress"]["percent"] is None
    half = job.Snapshot.of({"state": "running", "done": "1", "total": "3"})
    assert half.shown()["progress"] == {"done": 1, "total": 3, "percent": 33.3}


def test_entries_of_both_redis_protocols() -> None:
    entry = ("1-1", {"state": "running"})
    assert events.entries([["stream", [entry]]]) == [entry]
    assert events.entries({"stream": [[entry]]}) == [entry]
