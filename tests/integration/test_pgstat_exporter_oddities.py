"""pgstat_exporter where settings of the role, names and files are not what one expects; on servers of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Installation, PostgresServer
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
