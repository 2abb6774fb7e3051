"""`attach postgresql` beside a PostgreSQL that is not ours: what it changes, what it leaves, what it says."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

from attach import AttachError, postgresql
from settings import load
from tests.integration.conftest import Installation, PostgresServer, postgres_server, wait_until
from tests.integration.pgstat_exporter_process import command, environment, running, write_config

ROOT = Path(__file__).resolve().parents[2]
ROLE = "messwarte_monitor"
PASSWORD = "an administrator's"  # noqa: S105
LOGS = "log_statement = 'all'\nlog_min_duration_statement = 0\n"
PRELOADED = "shared_preload_libraries = 'pg_stat_statements'\n"

# Everything that a role can hold, asked of the catalog without the product's help.
ROLES = f"SELECT rolname, rolsuper, rolcanlogin, rolconnlimit, rolconfig FROM pg_roles WHERE rolname = '{ROLE}'"  # noqa: S608
MEMBERS = f"SELECT '\"' || roleid::regrole || '\"' FROM pg_auth_members WHERE member = to_regrole('{ROLE}')"  # noqa: S608
ACLS = """
SELECT 'CONNECT ON DATABASE "' || datname || '"' FROM pg_database, aclexplode(datacl) AS a
WHERE a.grantee = to_regrole('messwarte_monitor')
UNION ALL
SELECT a.privilege_type || ' ON SCHEMA "' || nspname || '"' FROM pg_namespace, aclexplode(nspacl) AS a
WHERE a.grantee = to_regrole('messwarte_monitor')
"""
REST = """
SELECT 'class', oid::regclass::text, relacl::text FROM pg_class UNION ALL
SELECT 'namespace', nspname, nspacl::text FROM pg_namespace UNION ALL
SELECT 'database', datname, datacl::text FROM pg_database UNION ALL
SELECT 'function', oid::regprocedure::text, proacl::text FROM pg_proc UNION ALL
SELECT 'role', rolname, rolpassword FROM pg_authid UNION ALL
SELECT 'extension', extname, extversion FROM pg_extension UNION ALL
SELECT 'members', roleid::regrole::text, member::regrole::text FROM pg_auth_members UNION ALL
SELECT 'setting', name, setting FROM pg_file_settings UNION ALL
SELECT 'start', pg_postmaster_start_time()::text, pg_conf_load_time()::text ORDER BY 1, 2, 3
"""


@dataclass
class Foreign:
    """A PostgreSQL that asks for passwords and logs every statement; the inventory's only host is this machine."""

    server: PostgresServer
    folder: Path

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.server.port}/Buchhaltung"

    @property
    def settings(self) -> Path:
        return self.folder / "settings.yml"

    @property
    def secrets(self) -> dict[str, str]:
        return dict(yaml.safe_load((self.folder / "secrets.yml").read_text()))

    def attach(self, *arguments: str, stdin: str | None = PASSWORD) -> subprocess.CompletedProcess[str]:
        """Run the verb, with the administrator's password on standard input."""
        inventory = self.folder / "inventory.py"
        data = {"settings": str(self.settings), "secrets": str(self.folder / "secrets.yml")}
        inventory.write_text(f'all = (["@local"], {data!r})\nmonitoring = ["@local"]\n')
        self.settings.touch()
        way = ["--password-stdin"] if stdin else []
        full = [sys.executable, "-m", "cli", "attach", "postgresql", *arguments, str(inventory), *way]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return subprocess.run(full, cwd=ROOT, env=clean, input=stdin or "", capture_output=True, text=True, check=False)

    def ask(self, query: str, database: str = "Buchhaltung", **login: str) -> list[tuple[object, ...]]:
        """Return rows, as a superuser over TLS or plain, or as somebody else."""
        user = {"user": "postgres", "password": PASSWORD} | login
        with psycopg.connect(make_conninfo(self.server.dsn(database), **user), autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def rest(self) -> set[tuple[object, ...]]:
        """Return everything that could have been changed."""
        return set(self.ask(REST))

    def held(self) -> set[str]:
        """Return what the role was given, in the words of GRANT."""
        return {str(row[0]) for row in [*self.ask(MEMBERS), *self.ask(ACLS)]}


@pytest.fixture(scope="module")
def servers(
    local_postgresql: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, PostgresServer]]:
    """Two servers, one with pg_stat_statements preloaded, one without and with TLS."""
    given = tmp_path_factory.mktemp("given")
    (given / "password").write_text(PASSWORD)
    # The server's user reads it.
    for folder in (given, *given.parents[: -len(Path(tempfile.gettempdir()).parts)]):
        folder.chmod(0o755)
    scram = ("-A", "scram-sha-256", f"--pwfile={given / 'password'}")
    with (
        postgres_server(local_postgresql, LOGS + PRELOADED, *scram) as preloaded,
        postgres_server(local_postgresql, LOGS, *scram) as plain,
    ):
        subprocess.run(
            shlex.split(
                "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=foreign -days 2 -keyout key -out certificate"
            ),
            cwd=given,
            check=True,
            capture_output=True,
        )
        data = plain.directory / "data"
        for name, target in (("key", "server.key"), ("certificate", "server.crt")):
            (data / target).write_bytes((given / name).read_bytes())
            (data / target).chmod(0o600)
            if os.geteuid() == 0:
                os.chown(data / target, data.stat().st_uid, data.stat().st_gid)
        plain.stop()
        with (data / "postgresql.conf").open("a") as file:
            file.write("ssl = on\n")
        plain.start()
        yield {"preloaded": preloaded, "plain": plain}


@pytest.fixture(params=["preloaded"])
def foreign(servers: dict[str, PostgresServer], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Foreign]:
    """A server with a fresh database whose name needs quotes."""
    found = Foreign(servers[request.param], tmp_path)
    found.ask('CREATE DATABASE "Buchhaltung"', "postgres")
    yield found
    found.ask('DROP DATABASE "Buchhaltung" WITH (FORCE)', "postgres")
    found.ask(f"DROP ROLE IF EXISTS {ROLE}", "postgres")


plain = pytest.mark.parametrize("foreign", ["plain"], indirect=True)


@pytest.mark.parametrize(
    "dsn", ["host=db password=geheim", "postgresql://app:geheim@db/erp", "host=db password='geheim"]
)
def test_a_password_on_the_command_line_is_refused_and_not_repeated(dsn: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "cli", "attach", "postgresql", dsn],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "geheim" not in run.stdout + run.stderr
    assert "--password-file, --password-stdin or ~/.pgpass" in run.stderr


def test_the_role_has_exactly_what_grants_prints_and_nothing_restarts(foreign: Foreign, tmp_path: Path) -> None:
    """What is given is what the exporter of its own prints; all else is as before, and every collector is served."""
    foreign.ask("CREATE EXTENSION pg_stat_statements")
    before = foreign.rest()
    run = foreign.attach(foreign.dsn)
    assert run.returncode == 0, run.stdout + run.stderr
    login = make_conninfo(foreign.server.dsn("Buchhaltung"), user=ROLE)
    printed = subprocess.run(
        command("grants", write_config(tmp_path, login)), env=environment(), capture_output=True, text=True, check=True
    )
    grants = [line for line in printed.stdout.splitlines() if not line.startswith("--")]
    assert {f'GRANT {held} TO "{ROLE}";' for held in foreign.held()} == set(grants)
    assert all(f"    {line}" in run.stdout for line in grants)
    assert foreign.ask(ROLES) == [(ROLE, False, True, 5, ["default_transaction_read_only=on"])]
    after = foreign.rest()
    changed = {"database Buchhaltung", "namespace public"}
    assert {f"{kind} {name}" for kind, name, _ in before - after} <= changed
    new = {f"{kind} {name}" for kind, name, _ in after - before}
    assert new == {*changed, f"role {ROLE}", "members pg_monitor"}

    password = tmp_path / "password"
    password.write_text(foreign.secrets["postgres_monitor"])
    config = write_config(tmp_path, login, password_file=str(password))
    check = subprocess.run(command("check", config), env=environment(), capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout
    # What reads every row is not given, and PostgreSQL 15 has no pg_stat_io.
    lacking = [line for line in check.stdout.splitlines() if " ok: " not in line]
    assert all("pg_read_all_data" in line or line.startswith("io ") for line in lacking), check.stdout


def test_a_second_run_changes_nothing_and_what_was_changed_by_hand_comes_back(foreign: Foreign) -> None:
    assert foreign.attach(foreign.dsn).returncode == 0
    first = foreign.rest()
    again = foreign.attach(foreign.dsn)
    assert (again.returncode, foreign.rest()) == (0, first)
    assert "nothing to change: role and grants are there" in again.stdout
    foreign.ask(f"ALTER ROLE {ROLE} SUPERUSER PASSWORD 'x' VALID UNTIL '2020-01-01'; REVOKE pg_monitor FROM {ROLE}")
    mended = foreign.attach(foreign.dsn)
    assert (mended.returncode, foreign.rest()) == (0, first), mended.stdout + mended.stderr
    assert f"ALTER ROLE {ROLE} NOSUPERUSER VALID UNTIL 'infinity';" in mended.stdout


def test_password_and_verifier_are_in_no_log_no_statistics_and_no_output(foreign: Foreign) -> None:
    """The server logs every statement of everybody, and keeps utility statements in pg_stat_statements."""
    foreign.ask("CREATE EXTENSION pg_stat_statements")
    run = foreign.attach(foreign.dsn)
    kept = (foreign.server.directory / "log").read_text() + str(foreign.ask("SELECT query FROM pg_stat_statements"))
    assert "aclexplode" in kept, "the log is one of all statements"
    secrets = foreign.secrets
    for secret in (secrets["postgres_monitor"], secrets["postgres_monitor_scram"], PASSWORD):
        assert secret not in kept + run.stdout + run.stderr
    ((stored,),) = foreign.ask(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'")  # noqa: S608
    assert stored == secrets["postgres_monitor_scram"]


def test_a_dry_run_shows_the_sql_and_leaves_nothing(foreign: Foreign) -> None:
    before = foreign.rest()
    run = foreign.attach(foreign.dsn, "--dry-run")
    assert run.returncode == 0, run.stderr
    assert f"CREATE ROLE {ROLE} LOGIN CONNECTION LIMIT 5 PASSWORD '(SCRAM-SHA-256 verifier)';" in run.stdout
    assert foreign.rest() == before
    assert not (foreign.folder / "secrets.yml").exists()


def test_remove_takes_everything_away_and_a_second_time_nothing(foreign: Foreign) -> None:
    before = foreign.rest()
    assert foreign.attach(foreign.dsn).returncode == 0
    foreign.ask(f"GRANT CONNECT ON DATABASE postgres TO {ROLE}")
    run = foreign.attach(foreign.dsn, "--remove")
    assert run.returncode == 0, run.stderr
    # An access list that was never touched is NULL, and afterwards says the same in full.
    assert {row for row in foreign.rest() - before if ROLE in str(row)} == set()
    assert foreign.held() == set()
    assert foreign.ask(ROLES) == []
    assert "there is no such role" in foreign.attach(foreign.dsn, "--remove").stdout


def test_a_role_that_owns_something_is_not_removed(foreign: Foreign) -> None:
    assert foreign.attach(foreign.dsn).returncode == 0
    foreign.ask(f"CREATE TABLE kept (); ALTER TABLE kept OWNER TO {ROLE}")
    run = foreign.attach(foreign.dsn, "--remove")
    foreign.ask("DROP TABLE kept")
    assert run.returncode == 1
    assert "nothing was changed" in run.stderr
    assert "owner of table kept" in run.stderr
    assert len(foreign.held()) == 3


def test_the_extension_is_made_only_when_asked_for(foreign: Foreign) -> None:
    extension = "SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'"
    run = foreign.attach(foreign.dsn)
    assert "run `CREATE EXTENSION pg_stat_statements;` in database Buchhaltung" in run.stdout
    assert foreign.ask(extension) == []
    run = foreign.attach(foreign.dsn, "--create-extension")
    assert run.returncode == 0, run.stderr
    assert foreign.ask(extension) == [(1,)]


@plain
def test_without_the_library_all_else_is_measured_and_tls_is_in_the_settings(foreign: Foreign) -> None:
    run = foreign.attach(foreign.dsn, "--create-extension")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "note: no figures of single statements: pg_stat_statements is not in shared_preload_libraries" in run.stdout
    lines = run.stdout.partition("settings, for")[2].splitlines()[1:]
    foreign.settings.write_text("\n".join(line[4:] for line in lines if line.startswith("    ")))
    existing = load(foreign.settings).postgresql.existing
    assert existing
    assert existing.model_dump() == {
        "address": f"127.0.0.1:{foreign.server.port}",
        "database": "Buchhaltung",
        "sslmode": "require",
        "ca": None,
    }
    assert f"{foreign.settings} says so already" in foreign.attach(foreign.dsn).stdout


@plain
def test_an_extension_whose_library_is_not_loaded_is_skipped(foreign: Foreign, tmp_path: Path) -> None:
    foreign.ask("CREATE EXTENSION pg_stat_statements")
    assert foreign.attach(foreign.dsn).returncode == 0
    password = tmp_path / "password"
    password.write_text(foreign.secrets["postgres_monitor"])
    login = make_conninfo(foreign.server.dsn("Buchhaltung"), user=ROLE)
    with running(write_config(tmp_path, login, password_file=str(password))) as exporter:
        answer = exporter.scrape()
    assert answer.value("pg_scrape_collector_skipped", collector="statements", reason="preload") == 1
    skipped = [dict(labels) for name, labels in answer if name == "pg_scrape_collector_skipped"]
    assert [one["collector"] for one in skipped if one["reason"] not in {"privilege", "version"}] == ["statements"]
    assert {name for name, good in answer.success().items() if not good} == {one["collector"] for one in skipped}


def test_wrong_and_missing_passwords_are_said(foreign: Foreign) -> None:
    wrong = foreign.attach(foreign.dsn, stdin="wrong\n")
    assert (wrong.returncode, "password authentication failed" in wrong.stderr) == (1, True)
    missing = foreign.attach(foreign.dsn, stdin=None)
    assert (missing.returncode, "--password-stdin or ~/.pgpass" in missing.stderr) == (2, True)
    assert not (foreign.folder / "secrets.yml").exists()


def test_a_role_that_pg_hba_keeps_out_is_said_with_what_to_add(foreign: Foreign) -> None:
    hba = foreign.server.directory / "data" / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text("host all postgres all scram-sha-256\n")
    foreign.ask("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: foreign.attach(foreign.dsn).returncode == 1, "the role is kept out")
        run = foreign.attach(foreign.dsn)
    finally:
        hba.write_text(before)
        foreign.ask("SELECT pg_reload_conf()")
    assert "no pg_hba.conf entry for host" in run.stderr
    assert f"`host Buchhaltung {ROLE} ADDRESS/32 scram-sha-256`" in run.stderr


def test_an_administrator_who_is_no_superuser_is_told_what_may_be_logged(foreign: Foreign) -> None:
    """What is missing is refused whole; with the right to give pg_monitor, it works and stays quiet after."""
    foreign.ask("CREATE ROLE dba LOGIN CREATEROLE PASSWORD 'dba'", "postgres")
    dsn = foreign.dsn.replace("postgres@", "dba@")
    try:
        denied = foreign.attach(dsn, stdin="dba")
        assert (denied.returncode, "nothing was changed: GRANT " in denied.stderr) == (1, True)
        assert foreign.ask(ROLES) == []
        foreign.ask('GRANT pg_monitor TO dba WITH ADMIN OPTION; ALTER DATABASE "Buchhaltung" OWNER TO dba')
        foreign.ask("ALTER SCHEMA public OWNER TO dba")
        run = foreign.attach(dsn, stdin="dba")
        assert run.returncode == 0, run.stderr
        assert "the server's log may hold this SQL, as only a superuser can set log_statement" in run.stdout
        assert "nothing to change" in foreign.attach(dsn, stdin="dba").stdout
        gone = foreign.attach(dsn, "--remove", stdin="dba")
        assert (gone.returncode, foreign.ask(ROLES)) == (0, []), gone.stderr
    finally:
        foreign.ask("REASSIGN OWNED BY dba TO postgres; DROP OWNED BY dba")
        foreign.ask("DROP ROLE dba")


def test_other_versions_are_refused(foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one is installed here, so the bounds are moved."""
    version = foreign.ask("SELECT current_setting('server_version_num')::int / 10000")[0][0]
    assert version in postgresql.SUPPORTED
    monkeypatch.setattr(postgresql, "SUPPORTED", range(90, 95))
    login = make_conninfo(foreign.server.dsn("Buchhaltung"), password=PASSWORD)
    with (
        psycopg.connect(login, autocommit=True) as connection,
        pytest.raises(AttachError, match=f"this is PostgreSQL {version}; supported are 90 to 94: nothing was changed"),
    ):
        postgresql.Server(connection)
