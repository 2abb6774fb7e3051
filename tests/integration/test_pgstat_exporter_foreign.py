"""pgstat_exporter on a database that is not the demo ERP: every collector succeeds, or says why it was skipped."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

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
SELECT nextval('klein'), nextval('klein'), nextval('abwaerts');
CREATE TABLE nach_text (t text, n int) PARTITION BY RANGE (t, n);
CREATE TABLE nach_text_a PARTITION OF nach_text FOR VALUES FROM ('a', MINVALUE) TO ('m''z, )', 5);
CREATE TABLE nach_liste (art text, zeit timestamptz) PARTITION BY LIST (art);
CREATE TABLE nach_liste_null PARTITION OF nach_liste FOR VALUES IN (NULL, 'x') PARTITION BY RANGE (zeit);
CREATE TABLE nach_liste_null_1 PARTITION OF nach_liste_null FOR VALUES FROM (MINVALUE) TO ('infinity');
CREATE TABLE nach_liste_rest PARTITION OF nach_liste DEFAULT PARTITION BY HASH (zeit);
CREATE TABLE nach_liste_rest_0 PARTITION OF nach_liste_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE nach_ausdruck (n int) PARTITION BY RANGE ((n * 2));
CREATE TABLE nach_ausdruck_1 PARTITION OF nach_ausdruck FOR VALUES FROM (0) TO (10);
CREATE TABLE ohne_teile (n date) PARTITION BY RANGE (n);
INSERT INTO nach_liste VALUES (NULL, '-infinity'), ('x', '4714-11-24 00:00:00+00 BC');
CREATE MATERIALIZED VIEW nie_gefuellt AS SELECT id FROM kunde WITH NO DATA;
CREATE VIEW sicht AS SELECT 1 AS n;
CREATE TEMP TABLE voruebergehend (n int);
CREATE EXTENSION file_fdw;
CREATE SERVER dateien FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE fern (n int) SERVER dateien OPTIONS (filename '/does/not/exist');
CREATE PUBLICATION alles FOR ALL TABLES;
CREATE SUBSCRIPTION nichts CONNECTION 'host=192.0.2.1 dbname=none' PUBLICATION keine WITH (connect = false);
INSERT INTO kunde OVERRIDING SYSTEM VALUE SELECT n, repeat('x', 3000), '\x00' FROM generate_series(1, 50) AS n;
ANALYZE;
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
            owner.execute("ALTER SUBSCRIPTION nichts SET (slot_name = NONE)")
            owner.execute("DROP SUBSCRIPTION nichts")
        connection.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted))
        connection.execute("DROP ROLE test_foreign_monitor")


def test_a_database_that_we_have_never_seen(
    foreign: str, need_program: Callable[[str, str], str], tmp_path: Path
) -> None:
    """None fails, each that is skipped says what it lacks, and Prometheus's own checker reads the answer."""
    promtool = need_program("promtool", "prometheus")
    config = write_config(tmp_path, foreign)
    said = subprocess.run(command("check", config), env=environment(), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    skipped = [line for line in said.stdout.splitlines() if " skipped (" in line]
    assert all(line.partition("): ")[2] for line in skipped), skipped
    assert "failed" not in said.stdout
    with running(config) as exporter:
        answer = exporter.scrape()
        _, log = exporter.stop()
    assert "level=error" not in log
    kinds = {dict(labels)["reason"] for name, labels in answer if name == "pg_scrape_collector_skipped"}
    assert kinds <= {"privilege", "extension", "version"}
    labelled = [dict(labels) for _, labels in answer]
    relations = {(one["schemaname"], one["relname"]) for one in labelled if {"schemaname", "relname"} <= one.keys()}
    assert {('Größe "2"', "kunde"), ("public", "leere\nZeile"), ("public", "nach_liste")} <= relations
    reading = [promtool, "check", "metrics"]
    checked = subprocess.run(reading, input=answer.body, capture_output=True, text=True, check=False)
    complaints = [line for line in checked.stderr.splitlines() if " pg_" in f" {line}" and "non-histogram" not in line]
    assert complaints == []
