"""The ERP's server as a process: every endpoint against SQL of its own, its metrics, its troubles."""

import datetime
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from erp.queries import NAMES, QUERIES
from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.erp_process import ROOT, Server, erp

PLACES = {"lager_id": 3, "art": "Wareneingang", "menge": "5"}


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> Iterator[str]:
    """A small ERP whose owner is not the application's role, as on a host."""
    postgres.execute("CREATE DATABASE erp_server")
    found = postgres.dsn("erp_server")
    made = erp("generate", "--dsn", found)
    assert made.returncode == 0, made.stderr
    postgres.execute("CREATE ROLE erp_server_app LOGIN")
    postgres.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO erp_server_app", "erp_server"
    )
    yield found
    postgres.execute("DROP DATABASE erp_server WITH (FORCE)")
    postgres.execute("DROP ROLE erp_server_app")


@pytest.fixture(scope="module")
def server(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests share."""
    found = Server(dsn.replace("user=postgres", "user=erp_server_app"), tmp_path_factory.mktemp("server")).ready()
    yield found
    found.stop()


def rows(dsn: str, query: str, *parameters: Any) -> list[dict[str, Any]]:
    """Return a query's rows."""
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(query.encode(), parameters or None).fetchall()


def hot(dsn: str, what: str) -> int:
    """Return the article or charge with the most movements."""
    query = f"SELECT {what} AS hot FROM lagerbewegung GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1"  # noqa: S608
    return int(rows(dsn, query)[0]["hot"])


def test_the_page_lists_what_can_be_asked(server: Server) -> None:
    """Every operation of the OpenAPI document, and nothing else."""
    page = httpx.get(f"{server.url}/").text
    document = server.get("/openapi.json")
    operations = {(method.upper(), path) for path, found in document["paths"].items() for method in found}
    assert set(re.findall(r"<tr><td>([A-Z]+)<td><code>([^<]+)</code>", page)) == operations
    assert len(operations) >= 10


def test_article_search(server: Server, dsn: str) -> None:
    """In the order of names; what is searched for is text and no pattern."""
    every = "SELECT id FROM artikel WHERE kategorie = 'Saucen' AND name ILIKE %s ORDER BY name, id"
    found = server.get("/artikel", kategorie="Saucen", suche="bio", limit=500)
    assert [row["id"] for row in found] == [row["id"] for row in rows(dsn, every, "%bio%")] != []
    assert len(server.get("/artikel", kategorie="Saucen", limit=7)) == 7
    assert server.get("/artikel", kategorie="Saucen", suche="%") == []
    assert server.get("/artikel", kategorie="nichts") == []
    assert server.http.get("/artikel").status_code == 422
    assert server.http.get("/artikel", params={"kategorie": "Saucen", "limit": 501}).status_code == 422


def test_article_through_sqlalchemy(server: Server, dsn: str) -> None:
    """With its supplier, or without."""
    for condition in ("IS NULL", "IS NOT NULL"):
        query = f"""SELECT a.*, l.name AS lieferant_name FROM artikel a LEFT JOIN lieferant l ON l.id = a.lieferant_id
                    WHERE a.lieferant_id {condition} ORDER BY a.id LIMIT 1"""  # noqa: S608
        (expected,) = rows(dsn, query)
        found = server.get(f"/artikel/{expected['id']}")
        assert found["name"] == expected["name"]
        assert Decimal(found["preis"]) == expected["preis"]
        assert (found["lieferant"] or {}).get("name") == expected["lieferant_name"]
    assert server.http.get("/artikel/999999").status_code == 404
    assert server.http.get("/artikel/99999999999").status_code == 422


def test_stock_and_charges_of_an_article(server: Server, dsn: str) -> None:
    article = hot(dsn, "artikel_id")
    query = "SELECT lager_id, sum(menge) AS menge FROM lagerbewegung WHERE artikel_id = %s GROUP BY 1 ORDER BY 1"
    found = server.get(f"/artikel/{article}/bestand")
    expected = [(row["lager_id"], row["menge"]) for row in rows(dsn, query, article)]
    assert [(row["lager_id"], Decimal(row["bestand"])) for row in found] == expected != []
    charges = server.get(f"/artikel/{article}/chargen", limit=500)
    of_article = "SELECT id FROM charge WHERE artikel_id = %s ORDER BY produktionsdatum DESC, id DESC LIMIT 500"
    assert [row["id"] for row in charges] == [row["id"] for row in rows(dsn, of_article, article)]


def test_batch_trace(server: Server, dsn: str) -> None:
    charge = hot(dsn, "charge_id")
    found = server.get(f"/chargen/{charge}/verfolgung")
    expected = rows(dsn, "SELECT id, menge FROM lagerbewegung WHERE charge_id = %s ORDER BY id", charge)
    assert [(row["id"], Decimal(row["menge"])) for row in found["bewegungen"]] == [tuple(r.values()) for r in expected]
    assert found["id"] == charge
    assert server.http.get("/chargen/999999/verfolgung").status_code == 404


def test_movements_of_a_period(server: Server, dsn: str) -> None:
    """The youngest first; the end does not belong to it."""
    today = datetime.datetime.now(datetime.UTC).date()
    begin = today - datetime.timedelta(days=7)
    query = "SELECT id FROM lagerbewegung WHERE datum >= %s AND datum < %s ORDER BY datum DESC, id DESC LIMIT 500"
    found = server.get("/bewegungen", von=str(begin), bis=str(today), limit=500)
    assert [row["id"] for row in found] == [row["id"] for row in rows(dsn, query, begin, today)] != []
    youngest = found[0]["datum"]
    assert server.get("/bewegungen", von=youngest, bis=youngest) == []


def test_monthly_report(server: Server, dsn: str) -> None:
    """Its lines add up to the month's movements."""
    month = (datetime.datetime.now(datetime.UTC).date().replace(day=1) - datetime.timedelta(days=1)).replace(day=1)
    query = """SELECT count(*), sum(menge) AS menge,
                      sum(menge * (SELECT preis FROM artikel WHERE id = artikel_id)) AS wert
               FROM lagerbewegung WHERE to_char(datum, 'YYYY-MM') = %s"""
    found = server.get(f"/berichte/monat/{month:%Y-%m}")
    (expected,) = rows(dsn, query, f"{month:%Y-%m}")
    assert sum(line["bewegungen"] for line in found) == expected["count"] > 0
    assert sum(Decimal(line["menge"]) for line in found) == expected["menge"]
    assert sum(Decimal(line["wert"]) for line in found) == expected["wert"]
    assert server.get("/berichte/monat/1999-01") == []
    assert server.http.get("/berichte/monat/2026-13").status_code == 422
    assert server.http.get("/berichte/monat/heute").status_code == 422


def test_categories_and_stores(server: Server, dsn: str) -> None:
    """Charges per category, as the plan's materialised view will have them."""
    query = """SELECT kategorie, count(c.id) AS chargen FROM artikel a LEFT JOIN charge c ON c.artikel_id = a.id
               GROUP BY 1 ORDER BY 1"""
    found = server.get("/kategorien")
    assert [(row["kategorie"], row["chargen"]) for row in found] == [tuple(row.values()) for row in rows(dsn, query)]
    assert sum(row["artikel"] for row in found) == 2_000
    assert len(server.get("/lager")) == rows(dsn, "SELECT count(*) FROM lager")[0]["count"]


def post(server: Server, **body: Any) -> httpx.Response:
    """Post a movement."""
    return server.http.post("/bewegungen", json=PLACES | body)


def test_posting_a_movement(server: Server, dsn: str) -> None:
    """It is there, for the charge's article, now; what is not in the store cannot be taken out."""
    (charge,) = rows(dsn, "SELECT id, artikel_id FROM charge WHERE status = 'frei' ORDER BY id DESC LIMIT 1")
    before = Decimal(sum(Decimal(row["bestand"]) for row in server.get(f"/artikel/{charge['artikel_id']}/bestand")))
    posted = post(server, charge_id=charge["id"], menge="5.125")
    assert posted.status_code == 201
    (row,) = rows(dsn, "SELECT *, now() - datum AS age FROM lagerbewegung WHERE id = %s", posted.json()["id"])
    assert (row["artikel_id"], row["charge_id"], row["menge"]) == (charge["artikel_id"], charge["id"], Decimal("5.125"))
    assert row["age"] < datetime.timedelta(minutes=1)
    after = sum(Decimal(row["bestand"]) for row in server.get(f"/artikel/{charge['artikel_id']}/bestand"))
    assert after - before == Decimal("5.125")
    sold = post(server, charge_id=charge["id"], art="Verkauf", menge="5.125")
    assert Decimal(sold.json()["menge"]) == Decimal("-5.125")
    assert post(server, charge_id=charge["id"], lager_id=7, art="Verkauf", menge="10000").status_code == 409


def test_what_cannot_be_posted(server: Server, dsn: str) -> None:
    """Told apart, and nothing is written."""
    count = "SELECT count(*) FROM lagerbewegung"
    before = rows(dsn, count)
    (blocked,) = rows(dsn, "SELECT id FROM charge WHERE status = 'gesperrt' LIMIT 1")
    assert post(server, charge_id=blocked["id"]).status_code == 409
    assert post(server, charge_id=999_999).status_code == 404
    assert post(server, charge_id=1, lager_id=999).status_code == 404
    for wrong in (
        {"menge": "0"},
        {"menge": "-1"},
        {"menge": "0.0001"},
        {"art": "Diebstahl"},
        {"x": 1},
        {"charge_id": 0},
    ):
        assert post(server, **({"charge_id": 1} | wrong)).status_code == 422
    assert rows(dsn, count) == before


def test_the_last_of_a_charge_is_sold_once(server: Server, dsn: str) -> None:
    """Ten at once want all of it: one gets it."""
    (charge,) = rows(dsn, "SELECT id FROM charge WHERE status = 'frei' ORDER BY id LIMIT 1")
    (store,) = rows(dsn, "SELECT max(id) AS id FROM lager")
    place = {"charge_id": charge["id"], "lager_id": store["id"]}
    assert post(server, **place, menge="3").status_code == 201
    stock = "SELECT sum(menge) AS menge FROM lagerbewegung WHERE charge_id = %s AND lager_id = %s"
    left = str(rows(dsn, stock, charge["id"], store["id"])[0]["menge"])
    with ThreadPoolExecutor(10) as pool:
        sales = list(pool.map(lambda _: post(server, **place, art="Verkauf", menge=left).status_code, range(10)))
    assert sorted(sales) == [201] + [409] * 9


def test_metrics_have_a_port_of_their_own(server: Server) -> None:
    """Every query by its name and every endpoint by its template, from 0 on; nothing on the public port."""
    assert server.http.get("/metrics").status_code == 404
    for name in NAMES:
        assert server.samples("erp_db_query_duration_seconds_bucket", query_name=name, le="1.0") >= 0

    def counted() -> list[float]:
        endpoint = {"endpoint": "/artikel/{artikel_id}"}
        return [
            server.samples("erp_db_query_count_total", query_name="artikel_detail"),
            server.samples("erp_http_requests_total", **endpoint, status="200"),
            server.samples("erp_endpoint_db_queries_total", **endpoint),
        ]

    # The engine's first connection asks the server about itself.
    server.get("/artikel/1")
    before = counted()
    for article in range(1, 6):
        server.get(f"/artikel/{article}")
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [5, 5, 5]
    assert server.samples("erp_db_active_connections") == 0


def test_postgresql_shows_the_queries_names(postgres: PostgresServer, server: Server, dsn: str) -> None:
    """What is slow in pg_stat_statements can be found in the code."""
    postgres.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements", "erp_server")
    server.get("/lager")
    query = "SELECT query FROM pg_stat_statements WHERE query LIKE '/* name: lager */ SELECT%'"
    assert rows(dsn, query)


def test_without_the_plans_indices_it_scans(server: Server, dsn: str) -> None:
    """The slow queries are really slow ones: PostgreSQL reads whole tables."""
    article, charge = hot(dsn, "artikel_id"), hot(dsn, "charge_id")
    today = datetime.datetime.now(datetime.UTC).date()
    period = {"von": today - datetime.timedelta(days=30), "bis": today}
    pages: list[tuple[str, dict[str, Any], str, str]] = [
        ("/artikel", {"kategorie": "Saucen"}, "artikel_suche", "artikel"),
        (f"/artikel/{article}/bestand", {}, "artikel_bestand", "lagerbewegung"),
        (f"/artikel/{article}/chargen", {}, "artikel_chargen", "charge"),
        (f"/chargen/{charge}/verfolgung", {}, "charge_bewegungen", "lagerbewegung"),
        ("/bewegungen", {name: str(day) for name, day in period.items()}, "bewegungen_zeitraum", "lagerbewegung"),
        (f"/berichte/monat/{today:%Y-%m}", {}, "monatsbericht", "lagerbewegung"),
        ("/kategorien", {}, "kategorien", "charge"),
    ]
    values = period | {"kategorie": "Saucen", "muster": "%", "limit": 50, "artikel_id": article, "charge_id": charge}
    for path, parameters, name, table in pages:
        server.get(path, **parameters)
        with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
            plan = connection.execute(f"EXPLAIN {QUERIES[name]}".encode(), values).fetchall()
        assert any(f"Seq Scan on {table}" in line for (line,) in plan), plan


def test_what_waits_for_a_lock_succeeds_once_it_is_gone(server: Server, dsn: str) -> None:
    """Readers and a writer wait, seen as active connections; then all are served, and counted as slow."""
    slow = {"query_name": "bewegung_buchen"}
    name = "erp_db_query_duration_seconds"
    before = server.samples(f"{name}_count", **slow) - server.samples(f"{name}_bucket", **slow, le="1.0")
    (charge,) = rows(dsn, "SELECT id FROM charge WHERE status = 'frei' ORDER BY id DESC LIMIT 1")
    with psycopg.connect(dsn) as holder, ThreadPoolExecutor(4) as pool:
        holder.execute("LOCK TABLE lagerbewegung")
        posting = pool.submit(post, server, charge_id=charge["id"])
        reading = [pool.submit(server.http.get, "/artikel/1/bestand") for _ in range(3)]
        wait_until(lambda: server.samples("erp_db_active_connections") == 4, "four requests hold a connection")
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND now() - query_start > '1.1 s'"
        )
        wait_until(lambda: rows(dsn, waiting)[0]["count"] == 4, "all of them have waited for more than a second")
        assert server.http.get("/healthz").status_code == 200
        holder.rollback()
        assert posting.result().status_code == 201
        assert [one.result().status_code for one in reading] == [200, 200, 200]
    after = server.samples(f"{name}_count", **slow) - server.samples(f"{name}_bucket", **slow, le="1.0")
    assert after - before == 1
    assert server.samples("erp_db_active_connections") == 0


def test_it_stops_within_five_seconds_even_with_requests_that_hang(dsn: str, tmp_path: Path) -> None:
    """And leaves no session behind at the server."""
    server = Server(f"{dsn} application_name=stopping", tmp_path).ready()
    with psycopg.connect(dsn) as holder, ThreadPoolExecutor(2) as pool:
        holder.execute("LOCK TABLE lagerbewegung, artikel")
        hanging = [
            pool.submit(httpx.get, f"{server.url}{path}", timeout=40) for path in ("/artikel/1", "/artikel/1/bestand")
        ]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: rows(dsn, waiting)[0]["count"] == 2, "two requests hang")
        begun = time.monotonic()
        server.process.terminate()
        server.process.wait(15)
        assert time.monotonic() - begun < 5
        for one in hanging:
            assert one.exception() is not None or one.result().status_code == 500
        wait_until(lambda: rows(dsn, waiting)[0]["count"] == 0, "no session is left")
    assert server.stop() in {0, -15}


def test_a_database_that_is_away_is_503_and_comes_back(postgres: PostgresServer, dsn: str, tmp_path: Path) -> None:
    """The server starts without it, says so, and serves once it is there; after a restart too, without an error."""
    server = Server("host=127.0.0.1 port=1 dbname=erp user=nobody", tmp_path).ready(503)
    assert server.http.get("/healthz").json() == {"detail": "the database is not available; try again"}
    server.stop()
    server = Server(dsn, tmp_path).ready()
    try:
        assert server.http.get("/artikel/1").status_code == server.http.get("/lager").status_code == 200
        postgres.stop()
        assert server.http.get("/healthz").status_code == 503
        postgres.start()
        server.ready()
        assert server.http.get("/artikel/1").status_code == server.http.get("/lager").status_code == 200
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text()


def test_a_password_comes_from_its_file(dsn: str, tmp_path: Path) -> None:
    """Read at each connection, and never shown."""
    secret = tmp_path / "password"
    secret.write_text("not asked for by this server\n")
    server = Server(dsn, tmp_path, ERP_DATABASE_PASSWORD_FILE=str(secret)).ready()
    command = Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert "not asked" not in command
    assert server.stop() in {0, -15}
    missing = erp("serve", ERP_DATABASE=dsn, ERP_DATABASE_PASSWORD_FILE=str(tmp_path / "none"))
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: ERP_DATABASE_PASSWORD_FILE: cannot read")


def test_its_wheel_has_everything(tmp_path: Path) -> None:
    """What a host gets runs from the wheel: the schema, the modules, no tests."""
    source = shutil.copytree(ROOT / "erp", tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path for path in (ROOT / "erp").rglob("*") if path.suffix in {".py", ".sql", ".typed"}]
    assert names == {f"erp/{path.relative_to(ROOT / 'erp')}" for path in files}
    lock = (ROOT / "erp" / "requirements.lock").read_text()
    assert "psycopg==" in lock
    assert "binary" not in lock
    assert "://" not in lock
