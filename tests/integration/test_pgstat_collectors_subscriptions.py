"""The collector subscriptions on a subscription to another database of the same server, with an error made by hand."""

from collections.abc import Iterator

import pytest

from tests.integration.conftest import wait_until
from tests.integration.pgstat_subject import Subject, fresh

TABLE = "CREATE TABLE posten (id int PRIMARY KEY, wert int)"


@pytest.fixture
def publisher(subject: Subject) -> Iterator[Subject]:
    """Another database, with the publication that `subject` subscribes to."""
    with fresh(subject.server, subject.folder) as one:
        one.do(TABLE, "CREATE PUBLICATION alles FOR ALL TABLES")
        # On one server, making the slot from within CREATE SUBSCRIPTION would wait for itself.
        one.do(f"SELECT pg_create_logical_replication_slot('{subject.name}', 'pgoutput')")
        subject.do(
            TABLE,
            "CREATE TABLE fremd (id int)",
            f"CREATE SUBSCRIPTION abo CONNECTION '{subject.server.dsn(one.name)}' PUBLICATION alles "
            f"WITH (create_slot = false, slot_name = '{subject.name}', copy_data = false)",
        )
        yield one
        subject.do(
            "ALTER SUBSCRIPTION abo DISABLE", "ALTER SUBSCRIPTION abo SET (slot_name = NONE)", "DROP SUBSCRIPTION abo"
        )
        ended = f"SELECT active FROM pg_replication_slots WHERE slot_name = '{subject.name}'"  # noqa: S608
        wait_until(lambda: one.value(ended) is False, "the slot is released")
        one.do(f"SELECT pg_drop_replication_slot('{subject.name}')")


def test_a_subscription_at_work(subject: Subject, publisher: Subject) -> None:
    """One worker, whose times are the view's; all tables copied, nothing failed."""
    publisher.do("INSERT INTO posten SELECT n, n FROM generate_series(1, 100) n")
    wait_until(lambda: subject.value("SELECT count(*) FROM posten") == 100, "the rows arrive")
    before = subject.value("SELECT extract(epoch FROM last_msg_receipt_time) FROM pg_stat_subscription")
    answer = subject.ask("subscriptions")
    after = subject.value("SELECT extract(epoch FROM last_msg_receipt_time) FROM pg_stat_subscription")
    wanted = {
        "pg_subscription_enabled": 1, "pg_stat_subscription_workers": 1, "pg_subscription_tables": 1,
        "pg_subscription_tables_copying": 0, "pg_stat_subscription_apply_errors_total": 0,
        "pg_stat_subscription_sync_errors_total": 0,
    }  # fmt: skip
    assert {name: subject.shown(answer, name, "subname") for name in wanted} == {
        name: {"abo": value} for name, value in wanted.items()
    }
    shown = subject.shown(answer, "pg_stat_subscription_last_message_timestamp_seconds", "subname")["abo"]
    assert float(before) - 1e-5 <= shown <= float(after) + 1e-5
    assert subject.shown(answer, "pg_stat_subscription_unreported_bytes", "subname")["abo"] >= 0
    # It belongs to one database, whoever else is asked.
    there = publisher.ask("subscriptions")
    assert not publisher.shown(there, "pg_subscription_enabled", "subname")


def test_errors_and_conflicts(subject: Subject, publisher: Subject) -> None:
    """A row that is there already stops it again and again; 18 counts the conflict by its kind, too."""
    subject.do("INSERT INTO posten VALUES (7, 0)")
    publisher.do("INSERT INTO posten VALUES (7, 1)")
    count = "SELECT apply_error_count FROM pg_stat_subscription_stats"
    wait_until(lambda: subject.value(count) > 0, "the first error is counted")
    subject.do("ALTER SUBSCRIPTION abo DISABLE")
    wait_until(lambda: subject.value("SELECT count(pid) FROM pg_stat_subscription") == 0, "its worker ends")
    answer = subject.ask("subscriptions")
    assert subject.shown(answer, "pg_subscription_enabled", "subname") == {"abo": 0}
    assert subject.shown(answer, "pg_stat_subscription_workers", "subname") == {"abo": 0}
    errors = subject.value(count)
    assert errors >= 1
    assert subject.shown(answer, "pg_stat_subscription_apply_errors_total", "subname") == {"abo": errors}
    assert not subject.shown(answer, "pg_stat_subscription_last_message_timestamp_seconds", "subname")
    conflicts = subject.shown(answer, "pg_stat_subscription_conflicts_total", "conflict")
    if subject.major < 18:
        assert not conflicts
        return
    kinds = subject.rows("SELECT attname FROM pg_attribute WHERE attrelid = 'pg_stat_subscription_stats'::regclass"
        " AND attname ~ '^confl_'")  # fmt: skip
    assert set(conflicts) == {name.removeprefix("confl_") for (name,) in kinds}
    assert conflicts.pop("insert_exists") == errors
    assert not any(conflicts.values())
