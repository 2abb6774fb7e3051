"""pgstat_exporter as an operator has it: databases, servers, collectors of one's own, reload, TLS, systemd."""

import base64
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import httpx
import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.integration.conftest import PostgresServer, free_port, wait_until
from tests.integration.pgstat_exporter_process import (
    Answer,
    command,
    environment,
    only,
    running,
    write_config,
)

ROWS = """
help: Rows of a table of the test.
{more}
queries:
  - source: kiste
    sql: [{{file: kiste.sql}}]
    labels: [name]
    metrics:
      - {{name: kiste_inhalt, type: gauge, column: inhalt, help: What is in it.}}
"""
SQL = "SELECT name::text AS name, inhalt AS inhalt FROM public.kiste ORDER BY inhalt DESC\n"
OFF = only("server")


def own_collector(folder: Path, more: str) -> dict[str, object]:
    """Write a collector of the operator's own; return the settings for it alone beside `server`."""
    (folder / "kiste.yaml").write_text(ROWS.format(more=more))
    (folder / "kiste.sql").write_text(SQL)
    return {"collector_folders": [str(folder)], "collectors": OFF}


def fill(dsn: str, **values: int) -> None:
    """Let the table hold these rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kiste (name text, inhalt int)")
        connection.execute("TRUNCATE kiste")
        for name, value in values.items():
            connection.execute("INSERT INTO kiste VALUES (%s, %s)", (name, value))


@pytest.fixture
def second(postgres: PostgresServer) -> Iterator[str]:
    """Another fresh database's name."""
    name = f"test_second_{free_port()}"
    postgres.execute(f"CREATE DATABASE {name}")
    yield name
    postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def name_of(dsn: str) -> str:
    """Return a connection string's database."""
    return str(conninfo_to_dict(dsn)["dbname"])


def contents(answer: Answer) -> dict[str, float]:
    """Return the table's contents in the databases, as exported."""
    return answer.labelled("kiste_inhalt", "datname")


def test_databases_come_and_go(postgres: PostgresServer, database: str, second: str, tmp_path: Path) -> None:
    """Each is measured by itself; a new one is found, a dropped one leaves nothing, an excluded one is left alone."""
    third = f"{second}_new"
    own = own_collector(tmp_path, "scope: database\nevery: 1s")
    own["collectors"] = only("server", "database_size")
    fill(database, a=1)
    fill(postgres.dsn(second), a=2)
    config = write_config(tmp_path, database, databases={"include": ["test_*"], "exclude": [f"{third}_not"]}, **own)
    try:
        with running(config) as exporter:
            assert contents(exporter.scrape()) == {name_of(database): 1, second: 2}
            postgres.execute(f"CREATE DATABASE {third} TEMPLATE {second}")
            postgres.execute(f"CREATE DATABASE {third}_not TEMPLATE {second}")
            wait_until(lambda: third in contents(exporter.scrape()), "the new database is measured")
            postgres.execute(f"DROP DATABASE {second} WITH (FORCE)")
            wait_until(lambda: second not in contents(exporter.scrape()), "the dropped database is forgotten")
            sizes = "pg_database_size_bytes"
            wait_until(lambda: second not in exporter.scrape().labelled(sizes, "datname"), "and so is its size")
            answer = exporter.scrape()
            assert contents(answer) == {name_of(database): 1, third: 2}
            assert answer.value("pg_scrape_collector_success", collector="kiste", datname=third) == 1
            assert f'"{second}"' not in answer.body
            _, log = exporter.stop()
            assert "level=error" not in log
    finally:
        postgres.execute(f"DROP DATABASE IF EXISTS {third}")
        postgres.execute(f"DROP DATABASE IF EXISTS {third}_not")


def test_a_database_that_lets_nobody_in_is_skipped(
    postgres: PostgresServer, database: str, second: str, tmp_path: Path
) -> None:
    """For want of CONNECT, said with the database's name."""
    postgres.execute("CREATE ROLE test_guest LOGIN")
    postgres.execute(f"REVOKE ALL ON DATABASE {second} FROM PUBLIC")
    own = own_collector(tmp_path, "scope: database\nevery: 1m")
    fill(database, a=1)
    try:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("GRANT SELECT ON kiste TO test_guest")
        guest = make_conninfo(database, user="test_guest")
        wanted = {"include": [second, name_of(database)]}
        with running(write_config(tmp_path, guest, databases=wanted, **own)) as exporter:
            answer = exporter.scrape()
        assert contents(answer) == {name_of(database): 1}
        skipped = {"collector": "kiste", "datname": second, "reason": "privilege"}
        assert answer.value("pg_scrape_collector_skipped", **skipped) == 1
        assert answer.value("pg_scrape_collector_success", collector="kiste", datname=second) == 0
    finally:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("DROP OWNED BY test_guest")
        postgres.execute("DROP ROLE test_guest")


def test_what_failed_in_the_background_keeps_its_data_and_says_so(database: str, tmp_path: Path) -> None:
    """A table that is gone for a while is a failure at once and no gap; its return is seen without a hand."""
    own = own_collector(tmp_path, "scope: database\nevery: 1s")
    fill(database, a=7)
    config = write_config(tmp_path, database, databases={"include": [name_of(database)]}, **own)
    place = {"collector": "kiste", "datname": name_of(database)}
    with running(config) as exporter, psycopg.connect(database, autocommit=True) as connection:
        assert list(contents(exporter.scrape()).values()) == [7]
        connection.execute("ALTER TABLE kiste RENAME TO kiste_away")
        wait_until(lambda: exporter.scrape().value("pg_scrape_collector_success", **place) == 0, "the failure is told")
        failed = exporter.scrape()
        connection.execute("ALTER TABLE kiste_away RENAME TO kiste")
        assert list(contents(failed).values()) == [7]
        assert (failed.value("pg_scrape_collector_cache_age_seconds", **place) or 0) > 0
        wait_until(lambda: exporter.scrape().value("pg_scrape_collector_success", **place) == 1, "it is well again")
        _, log = exporter.stop()
    assert 'relation \\"public.kiste\\" does not exist' in log
    assert log.count("level=warning") == 1


def test_rows_at_the_edge_do_not_come_and_go(database: str, tmp_path: Path) -> None:
    """With top: 2, a row that was shown stays as long as it is among the first three; without order, one would flap."""
    own = own_collector(tmp_path, "top: 2")

    def shown() -> set[str]:
        return set(exporter.scrape().labelled("kiste_inhalt", "name"))

    fill(database, a=9, b=8, c=7, d=6)
    with running(write_config(tmp_path, database, **own)) as exporter:
        assert shown() == {"a", "b"}
        assert exporter.scrape().value("pg_scrape_collector_truncated", collector="kiste") == 1
        fill(database, a=9, c=8, b=7, d=6)
        assert shown() == {"a", "b", "c"}
        fill(database, a=9, b=8, c=7, d=6)
        assert shown() == {"a", "b", "c"}
        fill(database, a=9, d=8, c=7, b=6)
        assert shown() == {"a", "d", "c"}
        fill(database, a=9)
        assert shown() == {"a"}
        assert exporter.scrape().value("pg_scrape_collector_truncated", collector="kiste") == 0


def test_probe_reads_named_targets_only(postgres: PostgresServer, database: str, second: str, tmp_path: Path) -> None:
    """Each answers for its own server; what is not in the configuration cannot be asked for."""
    config = tmp_path / "config.yml"
    port = free_port()
    targets = {"erp": {"dsn": database}, "down": {"dsn": f"host=127.0.0.1 port={free_port()} dbname=none"}}
    config.write_text(yaml.safe_dump({"targets": targets, "port": port, "collectors": OFF}))
    with running(config):
        erp, down = (fetch(f"http://127.0.0.1:{port}/probe?target={name}") for name in targets)
        assert ("\npg_up 1\n" in erp[1], "\npg_up 0\n" in down[1]) == (True, True)
        assert (erp[0], down[0]) == (200, 200)
        asked = f"host=127.0.0.1%20port={postgres.port}%20dbname={second}"
        for query, status in (("", 400), (f"?target={asked}", 404), ("?target=erp&target=down", 400)):
            found, body = fetch(f"http://127.0.0.1:{port}/probe{query}")
            assert (found, "down, erp" in body, "dbname" in body) == (status, True, False)
        assert fetch(f"http://127.0.0.1:{port}/metrics")[0] == 404
        assert fetch(f"http://127.0.0.1:{port}/-/ready")[0] == 200


def fetch(url: str, context: ssl.SSLContext | None = None, login: str = "") -> tuple[int, str]:
    """Return status and body."""
    request = urllib.request.Request(url)  # noqa: S310 - loopback
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as response:  # noqa: S310 - loopback
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_clients_of_every_kind_read_the_whole_answer(database: str, tmp_path: Path) -> None:
    """Compressed or not; httpx reads one gzip member only."""
    with running(write_config(tmp_path, database)) as exporter:
        place = f"http://127.0.0.1:{exporter.port}/metrics"
        for encoding in ("gzip", "identity"):
            body = httpx.get(place, headers={"Accept-Encoding": encoding}).text
            assert body.startswith("# HELP pg_up ")
            assert "\npg_stat_archiver_" in body or "\npg_stat_wal_" in body
            assert body.splitlines()[-1].startswith("process_")


def test_readiness_is_the_databases_health_the_processes(database: str, tmp_path: Path) -> None:
    """An exporter without a database is healthy and not ready; its page leads on."""
    down = f"host=127.0.0.1 port={free_port()} dbname=none"
    for dsn, status in ((database, 200), (down, 503)):
        with running(write_config(tmp_path, dsn)) as exporter:
            place = f"http://127.0.0.1:{exporter.port}"
            assert fetch(f"{place}/-/ready")[0] == status
            assert fetch(f"{place}/-/healthy")[0] == 200
            assert 'href="/metrics"' in fetch(f"{place}/")[1]


def test_reload_takes_what_is_right_and_keeps_what_it_does_not_concern(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    """A wrong file changes nothing; a right one is in force at once, and another server keeps its session."""
    config = write_config(tmp_path, database, targets={"same": {"dsn": postgres.dsn()}})
    text = yaml.safe_load(config.read_text())
    with running(config) as exporter:
        place = f"http://127.0.0.1:{exporter.port}/probe?target=same"
        fetch(place)
        before = sessions(postgres, "postgres")
        config.write_text(yaml.safe_dump({**text, "colectors": {}}))
        exporter.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the configuration before stays in force" in exporter.log.read_text(), "it was refused")
        assert exporter.scrape().value("pg_up") == 1
        config.write_text(yaml.safe_dump({**text, "dsn": make_conninfo(database, application_name="anew")}))
        exporter.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: bool(exporter.scrape()) and sessions(postgres, application="anew") != [], "the new DSN is in force"
        )
        wait_until(lambda: not sessions(postgres, name_of(database)), "the session before is gone")
        fetch(place)
        assert sessions(postgres, "postgres") == before
        status, log = exporter.stop()
    assert status == 0
    assert "colectors: no such setting; did you mean collectors?" in log


def sessions(postgres: PostgresServer, database: str = "%", application: str = "pgstat_exporter") -> list[int]:
    """Return the server processes of exporters."""
    rows = postgres.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = "  # noqa: S608
        f"'{application}' AND datname LIKE '{database}' ORDER BY pid"
    )
    return [pid for (pid,) in rows]


def certificate(folder: Path, name: str) -> None:
    """Make a certificate of its own for loopback, as cert.pem and key.pem."""
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )


def test_tls_and_passwords_as_prometheus_exporters_have_them(
    need_program: Callable[[str, str], str], database: str, tmp_path: Path
) -> None:
    """No answer without TLS, none without the right password; a new certificate and a new user need no restart."""
    need_program("openssl", "openssl")
    web = tmp_path / "web.yml"
    users = {"prometheus": bcrypt.hashpw(b"geheim:mit", bcrypt.gensalt(4)).decode()}
    settings = {
        "tls_server_config": {"cert_file": "cert.pem", "key_file": "key.pem"},
        "http_server_config": {"headers": {"X-Content-Type-Options": "nosniff"}},
        "basic_auth_users": users,
    }
    web.write_text(yaml.safe_dump(settings))
    certificate(tmp_path, "first")
    first = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    config = write_config(tmp_path, database, web_config=str(web))
    port = yaml.safe_load(config.read_text())["port"]
    place = f"https://127.0.0.1:{port}/metrics"
    process = subprocess.Popen(command("serve", config), env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: accepts(port), "the exporter listens")
        statuses = [
            fetch(place, first, login)[0] for login in ("", "prometheus:falsch", "root:geheim:mit", "prometheus")
        ]
        assert statuses == [401, 401, 401, 401]
        status, body = fetch(place, first, "prometheus:geheim:mit")
        assert (status, "\npg_up 1\n" in body) == (200, True)
        with pytest.raises((OSError, ValueError)):
            fetch(place.replace("https", "http"), login="prometheus:geheim:mit")
        certificate(tmp_path, "second")
        second = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        settings["basic_auth_users"] = users | {"another": bcrypt.hashpw(b"auch", bcrypt.gensalt(4)).decode()}
        web.write_text(yaml.safe_dump(settings))
        assert fetch(place, second, "another:auch")[0] == 200
        web.write_text("basic_auth_user: {}\n")
        assert fetch(place, second, "another:auch")[0] == 200, "a wrong file opens no door"
        assert fetch(place, second, "")[0] == 401
    finally:
        process.terminate()
        _, log = process.communicate(timeout=10)
    assert "did you mean basic_auth_users?" in log
    checked = subprocess.run(command("check", config, "--offline"), env=environment(), capture_output=True, check=False)
    assert checked.returncode == 2


def accepts(port: int) -> bool:
    """Return whether something listens."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_systemd_hears_how_the_service_is(database: str, tmp_path: Path) -> None:
    """Ready once it listens, alive at half the watchdog's time, reloading and ready again, stopping."""
    config = write_config(tmp_path, database)
    path = tmp_path / "notify"
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as wire:
        wire.bind(str(path))
        wire.settimeout(20)
        variables = environment() | {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"}
        process = subprocess.Popen(command("serve", config), env=variables, stderr=subprocess.DEVNULL)

        def heard(until: str) -> list[str]:
            lines: list[str] = []
            while until not in lines:
                lines += wire.recv(4096).decode().splitlines()
            return lines

        try:
            heard("READY=1")
            assert accepts(yaml.safe_load(config.read_text())["port"])
            heard("WATCHDOG=1")
            heard("WATCHDOG=1")
            os.kill(process.pid, signal.SIGHUP)
            assert any(line.startswith("MONOTONIC_USEC=") for line in heard("READY=1"))
        finally:
            process.terminate()
        heard("STOPPING=1")
        assert process.wait(10) == 0


def say(verb: str, *options: str) -> str:
    """Return what a verb prints."""
    parts = [*command("x", Path("/x"))[:3], verb, *options]
    return subprocess.run(parts, env=environment(), capture_output=True, text=True, check=True).stdout


def test_a_collector_can_be_looked_at_and_tried(database: str, tmp_path: Path) -> None:
    """Its SQL, its output, its plans and its cost, each by one command, the operator's own collector included."""
    fill(database, a=1, b=2)
    own = own_collector(tmp_path, "scope: database\nevery: 1h")
    here = {"include": [name_of(database)]}
    config = ("--config", str(write_config(tmp_path, database, databases=here, **own)))
    assert f'kiste_inhalt{{datname="{name_of(database)}",name="b"}} 2' in say("run", "kiste", *config)
    plan = say("run", "kiste", "--explain", *config)
    assert ("Seq Scan on kiste" in plan, "actual time" in plan) == (True, True)
    assert "FROM public.kiste" in say("sql", "kiste", *config)
    assert "blk_read_time" in say("sql", "statements", "--pg", "17")
    listed = {line.split()[0]: line.split() for line in say("list", *config).splitlines()}
    assert listed["kiste"][1:4] == ["every", "3600s", "database"]
    assert int(listed["kiste"][-2]) >= 2, "series"
    assert "| `kiste_inhalt` | gauge | count | datname, name | 15+ | kiste | What is in it. |" in say(
        "metrics", *config
    )


def test_a_collector_of_ones_own_that_is_wrong_is_refused_with_its_place(database: str, tmp_path: Path) -> None:
    """A name that is taken, a metric that is declared twice, a folder that is not there."""
    own = own_collector(tmp_path, "every: 1m")
    config = write_config(tmp_path, database, **own)
    (tmp_path / "server.yaml").write_text((tmp_path / "kiste.yaml").read_text())
    missing = write_config(tmp_path, database, collector_folders=[str(tmp_path / "none")])
    for one, said in ((config, "server.yaml: there is a collector of this name already"), (missing, "cannot be read")):
        run = subprocess.run(
            command("check", one, "--offline"), env=environment(), capture_output=True, text=True, check=False
        )
        assert (run.returncode, said in run.stderr) == (2, True), run.stderr


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT\n    name AS name,\n    inhalt / 0 AS inhalt\nFROM public.kiste", "kiste.sql: division by zero"),
        (
            "-- Two lines.\nWITH weg AS (DELETE FROM public.kiste RETURNING name, inhalt)\n"
            "SELECT name AS name, inhalt AS inhalt FROM weg",
            "kiste.sql:2: WITH clause containing a data-modifying statement must be at the top level",
        ),
        ("SELECT name AS name, inhalt::text || 'x' AS inhalt\nFROM public.kiste", "kiste_inhalt: '1x' is no number"),
    ],
)
@pytest.mark.parametrize("every", ["", "every: 1m"])
def test_sql_of_ones_own_that_fails_is_told_with_its_place(
    database: str, tmp_path: Path, every: str, sql: str, said: str
) -> None:
    """At a scrape and in the background; nothing that the exporter puts round it is seen."""
    fill(database, a=1)
    own = own_collector(tmp_path, every)
    (tmp_path / "kiste.sql").write_text(sql)
    config = write_config(tmp_path, database, **own)
    run = subprocess.run(command("check", config), env=environment(), capture_output=True, text=True, check=False)
    assert f"failed: {said}" in run.stdout
    assert "LINE" not in run.stdout
    assert (run.returncode, contents_of(database)) == (1, [("a", 1)])


def contents_of(dsn: str) -> list[tuple[str, int]]:
    """Return the table's rows."""
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT name, inhalt FROM kiste").fetchall()


def test_a_label_may_be_a_number(database: str, tmp_path: Path) -> None:
    """Where only the first rows are shown, too."""
    fill(database, a=1, b=2, c=3)
    own = own_collector(tmp_path, "top: 2")
    (tmp_path / "kiste.sql").write_text("SELECT inhalt AS name, inhalt AS inhalt FROM public.kiste ORDER BY 1\n")
    with running(write_config(tmp_path, database, **own)) as exporter:
        assert exporter.scrape().labelled("kiste_inhalt", "name") == {"1": 1, "2": 2}


def test_a_roles_settings_cut_off_no_digits(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    fill(database, a=1)
    own = own_collector(tmp_path, "")
    (tmp_path / "kiste.sql").write_text("SELECT name AS name, 123457::float8 AS inhalt FROM public.kiste\n")
    postgres.execute("CREATE ROLE test_rounder LOGIN SUPERUSER")
    try:
        postgres.execute("ALTER ROLE test_rounder SET extra_float_digits = '-15'")
        with running(write_config(tmp_path, make_conninfo(database, user="test_rounder"), **own)) as exporter:
            assert exporter.scrape().labelled("kiste_inhalt", "name") == {"a": 123457}
    finally:
        postgres.execute("DROP ROLE test_rounder")


def test_databases_that_do_not_exist_are_told(database: str, tmp_path: Path) -> None:
    """A name that was mistyped leaves all collectors of databases out."""
    config = write_config(tmp_path, database, databases={"include": ["nirgends"]}, collectors=only("server", "tables"))
    assert "none fits include and exclude" in say("check", "--config", str(config))
