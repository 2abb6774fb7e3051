"""pgstat_exporter where a database's owner sets traps: nothing of theirs runs with the monitoring role's rights."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import Installation, PostgresServer
from tests.integration.pgstat_exporter_process import MONITOR, Answer, only, running, shop_server, write_config
from tests.integration.postgres_versions import CONFIGURATION

TRAP = "LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'trapped %', current_user; RETURN {}; END $$"
LOG = (
    "CREATE SCHEMA messwarte",
    "GRANT USAGE ON SCHEMA messwarte TO PUBLIC",
    "CREATE TYPE messwarte.number AS (n int)",
    f"CREATE FUNCTION messwarte.json(messwarte.number) RETURNS json {TRAP.format(repr('1'))}",
    "CREATE CAST (messwarte.number AS json) WITH FUNCTION messwarte.json(messwarte.number)",
    f"CREATE FUNCTION messwarte.policy() RETURNS bool {TRAP.format('true')}",
    "CREATE TABLE messwarte.mv_refresh_log "
    "(id int, view text, started_at timestamptz, seconds float8, rows {type}, error text)",
    "INSERT INTO messwarte.mv_refresh_log (id, view, started_at, seconds, rows) VALUES (1, 'names', now(), 1, {value})",
    "GRANT SELECT ON messwarte.mv_refresh_log TO PUBLIC",
    "CREATE MATERIALIZED VIEW messwarte.names AS SELECT 1 AS one",
)
POLICY = (
    "ALTER TABLE messwarte.mv_refresh_log ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY everybody ON messwarte.mv_refresh_log USING (messwarte.policy())",
)


@pytest.fixture(scope="module")
def server(local_postgresql: Installation) -> Iterator[PostgresServer]:
    """A server with a database that the clerk may make things in."""
    with shop_server(local_postgresql, CONFIGURATION) as one:
        one.execute("GRANT CREATE ON DATABASE shop TO clerk")
        one.execute("GRANT CREATE ON SCHEMA public TO clerk", "shop")
        yield one


def scraped(server: PostgresServer, tmp_path: Path, collector: str) -> Answer:
    """Return what a collector exports."""
    settings = only(collector)
    with running(write_config(tmp_path, server.dsn("shop", MONITOR), collectors=settings)) as exporter:
        return exporter.scrape()


@pytest.mark.parametrize(
    ("kind", "value", "more"), [("int8", "1", POLICY), ("messwarte.number", "ROW(1)", ())], ids=["policy", "cast"]
)
def test_a_log_of_refreshes_that_runs_code(
    server: PostgresServer, tmp_path: Path, kind: str, value: str, more: tuple[str, ...]
) -> None:
    """A table of that name may be anybody's: one with a policy, or with a type of its own, is not read."""
    with psycopg.connect(server.dsn("shop", "clerk"), autocommit=True) as clerk:
        for statement in (*LOG, *more):
            clerk.execute(statement.format(type=kind, value=value).encode())
        try:
            answer = scraped(server, tmp_path, "matviews")
        finally:
            clerk.execute("DROP SCHEMA messwarte CASCADE")
    assert answer.value("pg_matview_populated", datname="shop", schemaname="messwarte", relname="names") == 1
    assert not answer.labelled("pg_matview_refresh_rows", "relname")
    assert f"trapped {MONITOR}" not in server.log()


def test_operators_beside_pg_stat_statements(server: PostgresServer, tmp_path: Path) -> None:
    """The schema of the extension is searched, and whoever may write to it finds no operator of ours to take over."""
    arguments = ("float8, int4", "float8, int8", "float8, numeric", "numeric, int4", "int8, float8", "int8, int4")
    with psycopg.connect(server.dsn("shop", "clerk"), autocommit=True) as clerk:
        try:
            for number, pair in enumerate(arguments):
                left, right = pair.split(", ")
                name = f"public.trap_{number}"
                clerk.execute(f"CREATE FUNCTION {name}({pair}) RETURNS float8 {TRAP.format(1)}".encode())
                for operator in "/*+-":
                    taken = f"leftarg={left}, rightarg={right}, function={name}"
                    clerk.execute(f"CREATE OPERATOR public.{operator} ({taken})".encode())
            answer = scraped(server, tmp_path, "statements")
        finally:
            clerk.execute("DROP OWNED BY clerk")
    server.execute("GRANT CREATE ON DATABASE shop TO clerk")
    server.execute("GRANT CREATE ON SCHEMA public TO clerk", "shop")
    assert answer.success()["statements"] == 1
    assert f"trapped {MONITOR}" not in server.log()


def test_an_extension_in_a_schema_that_the_role_may_not_use(server: PostgresServer, tmp_path: Path) -> None:
    """It is skipped for want of that right, and comes with it."""
    server.execute("CREATE SCHEMA extensions; ALTER EXTENSION pg_stat_statements SET SCHEMA extensions", "shop")
    try:
        answer = scraped(server, tmp_path, "statements")
        assert answer.value("pg_scrape_collector_skipped", collector="statements", reason="privilege") == 1
        server.execute(f"GRANT USAGE ON SCHEMA extensions TO {MONITOR}", "shop")
        assert scraped(server, tmp_path, "statements").success()["statements"] == 1
    finally:
        server.execute("ALTER EXTENSION pg_stat_statements SET SCHEMA public; DROP SCHEMA extensions", "shop")
