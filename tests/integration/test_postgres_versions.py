"""The servers of several major versions that the exporter's tests run on are what they are said to be."""

import secrets
from collections.abc import Iterator

import pytest

from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.postgres_versions import MAJORS, Versions, replica_of, replicate_tables


@pytest.fixture
def shop(any_postgres: PostgresServer) -> Iterator[str]:
    """The name of a fresh database with one table; dropped afterwards."""
    name = f"shop_{secrets.token_hex(4)}"
    any_postgres.execute(f"CREATE DATABASE {name}")
    any_postgres.execute("CREATE TABLE sold (id int PRIMARY KEY)", name)
    yield name
    any_postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_version_is_the_one_asked_for(
    any_postgres: PostgresServer, versions: Versions, request: pytest.FixtureRequest, shop: str
) -> None:
    """By the version file that initdb wrote and the server's own word; pg_stat_statements counts."""
    major = request.node.callspec.params["any_postgres"]
    assert major in MAJORS
    assert any_postgres.installation == versions.installation(major)
    assert (any_postgres.data / "PG_VERSION").read_text().strip() == str(major)
    ((number,),) = any_postgres.execute("SHOW server_version_num")
    assert int(number) // 10000 == major
    any_postgres.execute("CREATE EXTENSION pg_stat_statements; SELECT 40 + 2 AS answer", shop)
    seen = any_postgres.execute("SELECT calls FROM pg_stat_statements WHERE query LIKE '%AS answer'", shop)
    assert seen == [(1,)]


def test_a_replica_follows(any_postgres: PostgresServer, shop: str) -> None:
    """What is written on the primary is read on the replica, and the slot does not outlive it."""
    with replica_of(any_postgres) as replica:
        any_postgres.execute("INSERT INTO sold VALUES (7)", shop)
        wait_until(lambda: replica.execute("SELECT id FROM sold", shop) == [(7,)], "the row arrives")
        assert replica.execute("SELECT pg_is_in_recovery()") == [(True,)]
    assert any_postgres.execute("SELECT slot_name FROM pg_replication_slots") == []


def test_tables_are_replicated_logically(any_postgres: PostgresServer, versions: Versions, shop: str) -> None:
    """A row of one server's table arrives in the other's."""
    major = int((any_postgres.data / "PG_VERSION").read_text())
    with versions.server(major) as subscriber:
        subscriber.execute(f"CREATE DATABASE {shop}")
        subscriber.execute("CREATE TABLE sold (id int PRIMARY KEY)", shop)
        replicate_tables(any_postgres, subscriber, shop, "sold")
        any_postgres.execute("INSERT INTO sold VALUES (8)", shop)
        wait_until(lambda: subscriber.execute("SELECT id FROM sold", shop) == [(8,)], "the row arrives")
        subscriber.execute(f"DROP SUBSCRIPTION {shop}", shop)
