"""The ERP's migrations and the refresh of its views on a real PostgreSQL, and the runner installed alone."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.migrate_process import Connection, Runner, ask, finish, valid

ROOT = Path(__file__).resolve().parents[2]
ERP = ROOT / "sql_migrations" / "erp"
DISTRIBUTION = ROOT / "sql_migrations" / "runner"
INDICES = ("idx_artikel_kat_name", "idx_charge_art_date", "idx_lagerbewegung_charge_datum")
VIEWS = ("mv_chargen_pro_kategorie", "mv_lagerbestand_pro_artikel")
# Only what the migrations touch; amounts and categories by which every result can be worked out by hand.
TABLES = b"""
CREATE TABLE artikel (id int PRIMARY KEY, name text NOT NULL, kategorie text NOT NULL);
CREATE TABLE charge (id int PRIMARY KEY, artikel_id int NOT NULL REFERENCES artikel, produktionsdatum date NOT NULL);
CREATE TABLE lagerbewegung (
    id int PRIMARY KEY, artikel_id int NOT NULL, charge_id int NOT NULL, datum timestamptz NOT NULL,
    menge numeric NOT NULL
);
INSERT INTO artikel VALUES (1, 'Mehl', 'Rohstoff'), (2, 'Salz', 'Rohstoff'), (3, 'Karton', 'Verpackung');
INSERT INTO charge VALUES (1, 1, '2026-01-01'), (2, 1, '2026-02-01'), (3, 2, '2026-03-01');
INSERT INTO lagerbewegung VALUES
    (1, 1, 1, '2026-01-02', 10.5), (2, 1, 2, '2026-02-02', 5), (3, 1, 1, '2026-02-03', -3), (4, 2, 3, '2026-03-03', 7);
"""
STOCK = {1: 12.5, 2: 7}
CHARGES = {"Rohstoff": 3, "Verpackung": 0}


@pytest.fixture
def admin(database: str) -> Iterator[Connection]:
    """A session beside the runner's, in a database with the ERP's tables."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        yield connection


@pytest.fixture
def erp(database: str, admin: Connection) -> Runner:  # noqa: ARG001 - the tables have to be there
    """The runner with the ERP's directory."""
    return Runner(database, ERP)


@pytest.fixture
def erp_app(postgres: PostgresServer) -> Iterator[str]:
    """The application's role."""
    made = not postgres.execute("SELECT 1 FROM pg_roles WHERE rolname = 'erp_app'")
    if made:
        postgres.execute("CREATE ROLE erp_app LOGIN")
    yield "erp_app"
    if made:
        postgres.execute("DROP ROLE erp_app")


def rows(connection: Connection, view: str) -> dict[object, float]:
    """Return a two-column view as a mapping."""
    return {key: float(value) for key, value in connection.execute(f"TABLE {view}".encode()).fetchall()}


def test_the_plans_indices_and_views_are_made(erp: Runner, admin: Connection) -> None:
    """On the plan's columns, valid, and with figures worked out by hand."""
    assert "5 applied" in erp.run("apply")
    shown: dict[str, str] = dict(
        admin.execute("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'").fetchall()
    )
    ends = ("artikel USING btree (kategorie, name)", "charge USING btree (artikel_id, produktionsdatum)")
    for index, end in zip(INDICES, (*ends, "lagerbewegung USING btree (charge_id, datum)"), strict=True):
        assert shown[index] == f"CREATE INDEX {index} ON public.{end}"
        assert valid(admin, index)
    assert rows(admin, "mv_lagerbestand_pro_artikel") == STOCK
    assert rows(admin, "mv_chargen_pro_kategorie") == CHARGES
    columns = admin.execute(
        "SELECT attrelid::regclass::text || '.' || attname FROM pg_attribute "
        "WHERE attrelid = ANY (%s::regclass[]) AND attnum > 0 ORDER BY 1",
        (list(VIEWS),),
    )
    assert [name for (name,) in columns] == [
        "mv_chargen_pro_kategorie.anzahl",
        "mv_chargen_pro_kategorie.kategorie",
        "mv_lagerbestand_pro_artikel.artikel_id",
        "mv_lagerbestand_pro_artikel.bestand",
    ]
    assert "nothing to apply" in erp.run("apply")


def test_what_was_taken_away_by_hand_is_lost_and_built_again(erp: Runner, admin: Connection) -> None:
    """A dropped index, an invalid one, a dropped view: each file says so, and `apply` runs those again."""
    erp.run("apply")
    admin.execute(f"DROP INDEX {INDICES[0]}".encode())
    admin.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (INDICES[1],))
    admin.execute(f"DROP MATERIALIZED VIEW {VIEWS[0]}".encode())
    lost = {one["file"]: one["lost"] for one in erp.status(3)["files"] if one["state"] == "lost"}
    assert lost == {
        "V0001__idx_artikel_kat_name.sql": ["idx_artikel_kat_name is missing"],
        "V0002__idx_charge_art_date.sql": ["idx_charge_art_date is invalid"],
        "R__mv_chargen_pro_kategorie.sql": [
            "mv_chargen_pro_kategorie is missing",
            "mv_chargen_pro_kategorie_kategorie_key is missing",
        ],
    }
    assert "3 applied" in erp.run("apply")
    assert all(valid(admin, index) for index in INDICES)
    assert rows(admin, VIEWS[0]) == CHARGES
    assert "nothing to apply" in erp.run("apply")


def test_the_application_may_read_the_views(erp: Runner, database: str, erp_app: str) -> None:
    """Granted although no default privilege was set."""
    erp.run("apply")
    with psycopg.connect(make_conninfo(database, user=erp_app)) as application:
        assert rows(application, "mv_lagerbestand_pro_artikel") == STOCK
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            application.execute("SELECT FROM lagerbewegung")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP OWNED BY erp_app")


def test_without_the_applications_role_it_works_too(erp: Runner, postgres: PostgresServer) -> None:
    """A database of one's own need not have it."""
    if postgres.execute("SELECT 1 FROM pg_roles WHERE rolname = 'erp_app'"):
        pytest.skip("the server has the role erp_app, made by another test")
    erp.run("apply")


def test_the_files_run_under_psql(
    database: str, admin: Connection, need_program: Callable[[str, str], str], tmp_path: Path
) -> None:
    """Twice, by hand, with the same result; the runner then finds the indices there."""
    psql = need_program("psql", "postgresql-client")
    for _ in range(2):
        for path in sorted(ERP.rglob("*.sql"), key=lambda path: (path.parent.name != "versioned", path.name)):
            run = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", str(path)]
            subprocess.run(run, check=True, capture_output=True, cwd=tmp_path)
    assert rows(admin, "mv_chargen_pro_kategorie") == CHARGES
    assert all(valid(admin, index) for index in INDICES)
    assert "5 applied" in Runner(database, ERP).run("apply")


def test_a_changed_view_is_swapped_under_its_readers(database: str, admin: Connection, tmp_path: Path) -> None:
    """A reader in a long transaction delays the swap; nobody ever meets an empty or missing view."""
    runner = Runner(database, Path(shutil.copytree(ERP, tmp_path / "erp")))
    runner.run("apply")
    file = runner.directory / "repeatable" / "R__mv_lagerbestand_pro_artikel.sql"
    file.write_text(file.read_text().replace("sum(menge) AS bestand", "sum(menge) AS bestand, count(*) AS bewegungen"))
    met: list[int | Exception] = []
    over = threading.Event()

    def read() -> None:
        with psycopg.connect(database, autocommit=True) as reader:
            while not over.is_set():
                met.append(ask(reader, "SELECT count(*) FROM mv_lagerbestand_pro_artikel"))

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: len(met) > 10, "the reader reads")
    runner.run("apply")
    before = len(met)
    wait_until(lambda: len(met) > before + 10, "the reader reads on")
    over.set()
    thread.join()
    assert set(met) == {len(STOCK)}
    assert ask(admin, "SELECT bewegungen FROM mv_lagerbestand_pro_artikel WHERE artikel_id = 1") == 3
    indices = admin.execute(
        "SELECT indexname FROM pg_indexes WHERE tablename = 'mv_lagerbestand_pro_artikel'"
    ).fetchall()
    assert indices == [("mv_lagerbestand_pro_artikel_artikel_id_key",)]


def test_refresh_brings_views_up_to_date_beside_their_readers(erp: Runner, admin: Connection, database: str) -> None:
    """A reader's open transaction stops no refresh; each is logged with its rows, and prints one line."""
    erp.run("apply")
    admin.execute(
        "INSERT INTO charge VALUES (4, 3, '2026-04-01'); INSERT INTO lagerbewegung VALUES (5, 3, 4, now(), 1)"
    )
    with psycopg.connect(database) as reader:
        assert rows(reader, "mv_lagerbestand_pro_artikel") == STOCK
        said = erp.run("refresh")
    assert [line.split()[:2] for line in said.splitlines()] == [[view, "refreshed"] for view in VIEWS]
    assert rows(admin, "mv_lagerbestand_pro_artikel") == STOCK | {3: 1}
    assert rows(admin, "mv_chargen_pro_kategorie") == {"Rohstoff": 3, "Verpackung": 1}
    log = admin.execute(
        "SELECT view, rows, error, seconds > 0, now() - started_at < '1 min' FROM messwarte.mv_refresh_log"
    )
    assert sorted(log.fetchall()) == [(VIEWS[0], 2, None, True, True), (VIEWS[1], 3, None, True, True)]


def test_first_population_named_views_and_failures(erp: Runner, admin: Connection) -> None:
    """WITH NO DATA is filled; a view without a unique index fails by name and harms no other; unknown ones are told."""
    admin.execute("CREATE MATERIALIZED VIEW a_new AS SELECT 1 AS n WITH NO DATA")
    admin.execute("CREATE SCHEMA reports; CREATE MATERIALIZED VIEW reports.c_keyless AS SELECT 1 AS n")
    assert "a_new  populated in" in erp.run("refresh", "a_new")
    admin.execute("CREATE UNIQUE INDEX ON a_new (n)")
    admin.execute("CREATE TABLE divisor AS SELECT 0 AS d")
    admin.execute("CREATE MATERIALIZED VIEW b_broken AS SELECT 1 / d AS n FROM divisor WITH NO DATA")
    process = erp.start("refresh", "--json")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    states = {one["view"]: (one["state"], one["error"]) for one in json.loads(out)["views"]}
    assert states["a_new"] == ("refreshed", None)
    assert states["b_broken"] == ("failed", "division by zero")
    state, error = states["reports.c_keyless"]
    assert state == "failed"
    assert "no unique index" in error
    assert ask(admin, "SELECT error FROM messwarte.mv_refresh_log WHERE view = 'b_broken'") == "division by zero"
    said = erp.run("refresh", "nothing", status=1)
    assert "nothing: no materialised view of this role; there are: a_new, b_broken" in said


def test_a_view_that_is_being_refreshed_is_skipped(erp: Runner, admin: Connection, database: str) -> None:
    """One refresh per view at a time: the second says so and ends well, so a slow view piles nothing up."""
    erp.run("apply")
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'lagerbewegung'::regclass"
    with psycopg.connect(database) as holder:
        holder.execute("LOCK TABLE lagerbewegung IN ACCESS EXCLUSIVE MODE")
        with erp.start("refresh", "mv_lagerbestand_pro_artikel", "--lock-timeout", "30s") as first:
            wait_until(lambda: ask(admin, waiting) is not None, "the first refresh waits")
            said = erp.run("refresh", "mv_lagerbestand_pro_artikel")
            assert "skipped: another refresh of it is running" in said
            holder.rollback()
            finish(first)
    assert ask(admin, "SELECT count(*) FROM messwarte.mv_refresh_log") == 1


def test_wheel_and_lock_file_are_enough(erp: Runner, tmp_path: Path) -> None:
    """Installed in an empty environment with psycopg on libpq and nothing else, it applies the ERP's migrations."""
    lock = (DISTRIBUTION / "requirements.lock").read_text()
    assert "binary" not in lock
    assert "://" not in lock
    source = shutil.copytree(
        DISTRIBUTION, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(tmp_path / "venv", symlinks=True)
    target = tmp_path / "venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", f"--target={target}"]
    subprocess.run([*install, *map(str, tmp_path.glob("*.whl"))], check=True)
    # Python before 3.13 needs typing_extensions beside what the hosts' lock file names.
    for name in ("psycopg", "typing_extensions"):
        for top in {file.parts[0] for file in importlib.metadata.distribution(name).files or ()} - {
            "..",
            "__pycache__",
        }:
            (target / top).symlink_to(str(importlib.metadata.distribution(name).locate_file(top)))
    command = [str(tmp_path / "venv" / "bin" / "python"), "-I", "-m", "messwarte_migrate", "apply"]
    run = subprocess.run(
        [*command, "--dsn", erp.dsn, "--directory", str(ERP)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert "5 applied" in run.stdout
