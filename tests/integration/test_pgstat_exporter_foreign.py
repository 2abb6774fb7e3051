"""pgstat_exporter on a database that is not the demo ERP: every collector succeeds, or says why it was skipped."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgstat_exporter import content
from tests.integration.pgstat_collectors import major_of
from tests.integration.pgstat_exporter_process import command, environment, running, write_config
from tests.integration.postgres_server import PostgresServer

NAME = 'Fremd "1"\\ ü\n%s {}'
# What real databases hold beside plain tables: odd names, every kind of relation, partitions of every kind.
SCHEMA = r'''
CREATE SCHEMA "Größe ""2""";
CREATE TABLE "Größe ""2""".kunde (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, bild bytea);
CREATE TABLE kunde (LIKE "Größe ""2""".kunde INCLUDING ALL);
CREATE UNLOGGED TABLE "leere
Zeile" (n numeric, CONSTRAINT "c%s" CHECK (n > 0));
CREATE TABLE ohne_spalten ();
CREATE TABLE geerbt () INHERITS (kunde);
CREATE INDEX ON kunde (lower(name), (id % 7)) WHERE id > 3;
CREATE INDEX ON kunde USING gin (to_tsvector('simple', name));
CREATE INDEX ON kunde USING brin (id);
CREATE INDEX ON kunde USING hash (name);
CREATE SEQUENCE abwaerts INCREMENT -1 MINVALUE -5 MAXVALUE -1 START -1 CYCLE;
CREATE SEQUENCE klein AS smallint MAXVALUE 3;
CREATE TABLE eng (id int);
CREATE SEQUENCE zu_weit MINVALUE 2147483648 OWNED BY eng.id;
SELECT nextval('klein'), nextval('klein'), nextval('abwaerts'), nextval('zu_weit');
CREATE TABLE nach_text (t text, n int) PARTITION BY RANGE (t, n);
CREATE TABLE nach_text_a PARTITION OF nach_text FOR VALUES FROM ('a', MINVALUE) TO ('m''z, )', 5);
CREATE TABLE nach_liste (art text, zeit timestamptz) PARTITION BY LIST (art);
CREATE TABLE nach_liste_null PARTITION OF nach_liste FOR VALUES IN (NULL, 'x') PARTITION BY RANGE (zeit);
CREATE TABLE nach_liste_null_1 PARTITION OF nach_liste_null FOR VALUES FROM (MINVALUE) TO ('infinity');
CREATE TABLE nach_liste_rest PARTITION OF nach_liste DEFAULT PARTITION BY HASH (zeit);
CREATE TABLE nach_liste_rest_0 PARTITION OF nach_liste_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE nach_ausdruck (n int) PARTITION BY RANGE ((n * 2));
CREATE TABLE nach_ausdruck_1 PARTITION OF nach_ausdruck FOR VALUES FROM (0) TO (10);
CREATE TABLE nach_zahl (n numeric) PARTITION BY RANGE (n);
CREATE TABLE nach_zahl_1 PARTITION OF nach_zahl FOR VALUES FROM (1e-400) TO (1e400);
CREATE TABLE nach_tag (tag date) PARTITION BY RANGE (tag);
CREATE TABLE nach_tag_1 PARTITION OF nach_tag FOR VALUES FROM ('4714-11-24 BC') TO ('5874897-12-31');
CREATE TABLE ohne_teile (n date) PARTITION BY RANGE (n);
INSERT INTO nach_liste VALUES (NULL, '-infinity'), ('x', '4714-11-24 00:00:00+00 BC');
CREATE MATERIALIZED VIEW nie_gefuellt AS SELECT id FROM kunde WITH NO DATA;
CREATE VIEW sicht AS SELECT 1 AS n;
CREATE TEMP TABLE voruebergehend (n int);
CREATE EXTENSION file_fdw;
CREATE SERVER dateien FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE fern (n int) SERVER dateien OPTIONS (filename '/does/not/exist');
CREATE EXTENSION pg_stat_statements;
CREATE PUBLICATION alles FOR ALL TABLES;
CREATE SUBSCRIPTION nichts CONNECTION 'host=192.0.2.1 dbname=none' PUBLICATION keine WITH (connect = false);
INSERT INTO kunde OVERRIDING SYSTEM VALUE SELECT n, repeat('x', 3000), '\x00' FROM generate_series(1, 50) AS n;
ANALYZE;
CREATE FOREIGN TABLE nach_tag_rest PARTITION OF nach_tag DEFAULT SERVER dateien OPTIONS (filename '/does/not/exist');
'''


@pytest.fixture
def foreign(any_postgres: PostgresServer) -> Iterator[str]:
    """A database as somebody else has it; its connection string for a role with pg_monitor only."""
    quoted = psycopg.sql.Identifier(NAME)
    with psycopg.connect(any_postgres.dsn(), autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(quoted))
        connection.execute("CREATE ROLE test_foreign_monitor LOGIN; GRANT pg_monitor TO test_foreign_monitor")
        database = make_conninfo(any_postgres.dsn(), dbname=NAME)
        with psycopg.connect(database, autocommit=True) as owner:
            for statement in SCHEMA.split(";\n")[:-1]:
                owner.execute(statement.encode())
            yield make_conninfo(database, user="test_foreign_monitor")
            owner.execute("DROP OWNED BY test_foreign_monitor")
            owner.execute("ALTER SUBSCRIPTION nichts SET (slot_name = NONE)")
            owner.execute("DROP SUBSCRIPTION nichts")
        connection.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted))
        connection.execute("DROP ROLE test_foreign_monitor")


def grant_all(server: PostgresServer, config: Path) -> None:
    """Give the role what `grants` prints, the right to read all tables included."""
    printed = subprocess.run(
        command("grants", config, "--data"), env=environment(), capture_output=True, text=True, check=True
    )
    with psycopg.connect(make_conninfo(server.dsn(), dbname=NAME), autocommit=True) as owner:
        owner.execute(printed.stdout.encode())


@pytest.mark.parametrize("everything", [False, True], ids=["pg_monitor", "grants"])
def test_a_database_that_we_have_never_seen(
    foreign: str,
    any_postgres: PostgresServer,
    need_program: Callable[[str, str], str],
    tmp_path: Path,
    everything: bool,
) -> None:
    """None fails, each that is skipped says what it lacks, and Prometheus's own checker reads the answer."""
    promtool = need_program("promtool", "prometheus")
    config = write_config(tmp_path, foreign)
    if everything:
        grant_all(any_postgres, config)
    said = subprocess.run(command("check", config), env=environment(), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    skipped = [line for line in said.stdout.splitlines() if " skipped (" in line]
    assert all(line.partition("): ")[2] for line in skipped), skipped
    assert "failed" not in said.stdout
    with running(config) as exporter:
        answer = exporter.scrape()
        _, log = exporter.stop()
    assert "level=error" not in log
    lacking = {
        dict(labels)["collector"]: dict(labels)["reason"]
        for name, labels in answer
        if name == "pg_scrape_collector_skipped"
    }
    wanted = {} if everything else dict.fromkeys(("bloat", "default_partitions", "sequences"), "privilege")
    assert lacking == wanted | ({"io": "version"} if major_of(any_postgres) < 16 else {})
    assert answer.success() == {name: float(name not in lacking) for name in content.load()}
    labelled = [dict(labels) for _, labels in answer]
    relations = {(one["schemaname"], one["relname"]) for one in labelled if {"schemaname", "relname"} <= one.keys()}
    assert {('Größe "2"', "kunde"), ("public", "leere\nZeile"), ("public", "nach_liste")} <= relations
    reading = [promtool, "check", "metrics"]
    checked = subprocess.run(reading, input=answer.body, capture_output=True, text=True, check=False)
    complaints = [line for line in checked.stderr.splitlines() if " pg_" in f" {line}" and "non-histogram" not in line]
    assert complaints == []
