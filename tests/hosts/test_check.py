"""What `deploy --check` says of changes by hand, row by row, and that a deploy takes back exactly those."""

import fnmatch
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.components import ORDER
from lab import Machine
from tests.hosts.conftest import LAB_SETTINGS, ROOT, STATE, Stack, bring_up, lab_of

_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"
_ERP = f"{_PSQL} -d erp"
_CURL = "curl -fsS -o /dev/null -u admin:$(cat /etc/messwarte/grafana/current/credentials/admin_password)"
_JSON = "-H 'Content-Type: application/json'"
_USERS = "sqlite3.connect('/var/lib/grafana/grafana.db').execute(\\\"SELECT id FROM user WHERE login = 'viewer'\\\")"
_VIEWER = f'$(python3 -c "import sqlite3; print({_USERS}.fetchone()[0])")'
_NOTES = (
    "import json, pathlib; print(json.dumps([json.loads(path.read_text()) "
    "for path in sorted(pathlib.Path('/var/lib/messwarte/applied').glob('*.json'))]))"
)
_OPT, _ETC = "/opt/messwarte/{}/current", "/etc/messwarte/{}/current"


@dataclass(frozen=True)
class Row:
    """A change by hand, what the check has to say of it (shell patterns, by component), and when it is healed.

    `restarts` are the units that a deploy may start anew to heal it.
    """

    change: str
    said: dict[str, list[str]]
    healed: str
    restarts: str = ""


ROWS = {
    "files of a program": Row(
        f"cd -P {_OPT.format('tasks')}/erp_tasks; echo >> __init__.py; rm api.py; touch zz.py; chmod 666 __main__.py",
        {
            "tasks": [
                "/opt/messwarte/tasks/*/erp_tasks/__init__.py was changed",
                "/opt/messwarte/tasks/*/erp_tasks/__main__.py was changed",
                "/opt/messwarte/tasks/*/erp_tasks/api.py is missing",
                "1 more below /opt/messwarte/tasks/*",
            ]
        },
        f"cd {_OPT.format('tasks')}/erp_tasks && test -s api.py && ! test -e zz.py "
        "&& test $(stat -c %a __main__.py) = 644",
        "messwarte-tasks-worker messwarte-tasks-api",
    ),
    "file of a program with the same size and moment": Row(
        f"cd -P {_OPT.format('erp')}/erp; touch -r __init__.py /root/then; sed -i s/food/Food/ __init__.py; "
        "touch -r /root/then __init__.py",
        {name: ["/opt/messwarte/erp/*/erp/__init__.py was changed"] for name in ("demo_data", "erp", "erp_load")},
        f"grep -q food {_OPT.format('erp')}/erp/__init__.py",
        "messwarte-erp messwarte-erp-load",
    ),
    "roles and rights": Row(
        f"{_ERP} -c 'CREATE ROLE stranger LOGIN SUPERUSER' -c 'GRANT erp_owner TO stranger' "
        "-c 'GRANT SELECT ON artikel TO stranger' -c 'GRANT UPDATE (name) ON artikel TO PUBLIC' "
        "-c 'GRANT CONNECT ON DATABASE erp TO stranger' "
        "-c \"ALTER ROLE erp_app NOINHERIT CONNECTION LIMIT 7 VALID UNTIL '2020-01-01'\" "
        "-c 'ALTER DEFAULT PRIVILEGES FOR ROLE erp_owner IN SCHEMA public GRANT SELECT ON TABLES TO stranger'",
        {
            "database": [
                "roles and database: now role erp_app NOINHERIT CONNECTION LIMIT 7 VALID UNTIL 2020-* PASSWORD *",
                "roles and database: now role stranger SUPERUSER",
                "roles and database: now stranger is a member of erp_owner",
                "roles and database: now CONNECT for stranger on DATABASE erp",
                "roles and database: now SELECT for stranger on TABLE artikel",
                "roles and database: now SELECT for stranger on TABLES",
                "roles and database: now UPDATE for PUBLIC on TABLE artikel",
                "roles and database: no longer role erp_app PASSWORD *",
            ]
        },
        f"{_ERP} -c \"SELECT rolsuper OR pg_has_role('stranger', 'erp_owner', 'member') "
        "OR has_any_column_privilege('stranger', 'artikel', 'SELECT, UPDATE') "
        "OR has_database_privilege('stranger', 'erp', 'CONNECT') FROM pg_roles WHERE rolname = 'stranger'\" "
        "| grep -qx f",
    ),
    "settings and access of PostgreSQL": Row(
        f"{_PSQL} -c 'ALTER SYSTEM SET work_mem = 1111' -c \"ALTER ROLE erp_app SET work_mem = '2222kB'\" "
        "-c 'ALTER DATABASE erp SET track_io_timing = off' -c 'ALTER ROLE ALL SET compute_query_id = off' "
        "-c \"ALTER ROLE erp_app SET search_path = 'public'\"; "
        f"echo 'host all all all trust' >> {_ETC.format('postgresql')}/pg_hba.conf; "
        f"echo 'messwarte root erp_owner' >> {_ETC.format('postgresql')}/pg_ident.conf; "
        "echo manual > /etc/postgresql/17/main/start.conf; "
        "systemctl disable --quiet postgresql.service; systemctl daemon-reload",
        {
            "postgresql": [
                "/etc/messwarte/postgresql/*/pg_hba.conf (content)",
                "/etc/messwarte/postgresql/*/pg_ident.conf (content)",
                "/etc/messwarte/postgresql/*/start.conf (content)",
                "postgresql@17-main.service is active/disabled",
                "postgresql.service is */disabled",
                "settings: now compute_query_id=off for role ALL in database ALL",
                "settings: now track_io_timing=off for role ALL in database erp",
                "settings: now work_mem = 1111 in /var/lib/postgresql/17/main/postgresql.auto.conf",
                "settings: now work_mem=2222kB for role erp_app in database ALL",
            ]
        },
        # What is no setting of ours is the operator's.
        f"{_PSQL} -c \"SELECT string_agg(conf, ' ') FROM pg_db_role_setting, unnest(setconfig) AS conf\" "
        f'| grep -qx search_path=public && {_PSQL} -c "SELECT count(*) FROM pg_hba_file_rules '
        "WHERE auth_method = 'trust'\" "
        "| grep -qx 0 && systemctl is-enabled postgresql && systemctl is-enabled postgresql@17-main",
    ),
    "objects of the versioned SQL": Row(
        f"{_ERP} -c 'DROP INDEX idx_charge_art_date' -c 'DROP MATERIALIZED VIEW mv_chargen_pro_kategorie' "
        "-c \"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_artikel_kat_name'::regclass\"",
        {
            "migrations": [
                "versioned SQL: now idx_artikel_kat_name is invalid",
                "versioned SQL: now idx_charge_art_date is missing",
                "versioned SQL: now mv_chargen_pro_kategorie is missing",
                "versioned SQL: now mv_chargen_pro_kategorie_kategorie_key is missing",
            ]
        },
        "messwarte-migrate status | grep -q 'erp: current' && "
        f'{_ERP} -c "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text IN '
        "('idx_charge_art_date', 'idx_artikel_kat_name', 'mv_chargen_pro_kategorie_kategorie_key')\" | grep -qx 3",
    ),
    "drop-ins of strangers": Row(
        "systemctl set-property prometheus-node-exporter CPUWeight=50; "
        "d=/etc/systemd/system/prometheus-node-exporter.service.d; "
        "printf '[Service]\\nProtectSystem=false\\n' > $d/zz.conf; systemctl daemon-reload",
        {
            "node_exporter": [
                "prometheus-node-exporter.service has /etc/systemd/system.control/*/*.conf",
                "prometheus-node-exporter.service has /etc/systemd/system/prometheus-node-exporter.service.d/zz.conf",
            ]
        },
        "systemctl show -p ProtectSystem prometheus-node-exporter | grep -qx ProtectSystem=strict && "
        "test -e /etc/systemd/system/prometheus-node-exporter.service.d/zz.conf.by-hand",
        "prometheus-node-exporter",
    ),
    "unit replaced": Row(
        "cp /usr/lib/systemd/system/prometheus-alertmanager.service /etc/systemd/system/; systemctl daemon-reload",
        {
            "alertmanager": [
                "prometheus-alertmanager.service has /etc/systemd/system/prometheus-alertmanager.service",
                "prometheus-alertmanager.service lacks /usr/lib/systemd/system/prometheus-alertmanager.service",
            ]
        },
        "systemctl show -p FragmentPath prometheus-alertmanager | grep -q =/usr/lib/",
        "prometheus-alertmanager",
    ),
    "unit masked": Row(
        "systemctl mask --quiet --now prometheus-redis-exporter",
        {
            "redis_exporter": [
                "prometheus-redis-exporter.service *",
                "prometheus-redis-exporter.service is inactive/masked",
            ]
        },
        "systemctl is-active prometheus-redis-exporter && systemctl is-enabled prometheus-redis-exporter",
        "prometheus-redis-exporter",
    ),
    "unit stopped": Row(
        "systemctl stop messwarte-refresh.timer",
        {"migrations": ["messwarte-refresh.timer is inactive/enabled"]},
        "systemctl is-active messwarte-refresh.timer",
    ),
    "unit disabled": Row(
        "systemctl disable --quiet postfix",
        {"mailbox": ["postfix.service is active/disabled"]},
        "systemctl is-enabled postfix",
    ),
    "user of a service": Row(
        "usermod --shell /bin/bash --append --groups adm --password '$6$x$y' messwarte-exporter",
        {
            "pgstat_exporter": [
                "user messwarte-exporter has shell /bin/bash, groups adm, a password "
                "instead of shell /usr/sbin/nologin, groups -, no password"
            ]
        },
        "getent passwd messwarte-exporter | grep -q nologin && test $(id -Gn messwarte-exporter) = messwarte-exporter",
    ),
    "mode of a credential": Row(
        f"chmod 644 {_ETC.format('redis')}/monitor_password",
        {"redis": ["/etc/messwarte/redis/*/monitor_password (mode 644 instead of 600)"]},
        f"test $(stat -L -c %a {_ETC.format('redis')}/monitor_password) = 600",
        "redis-server",
    ),
    "deleted rules": Row(
        f"rm {_ETC.format('prometheus')}/rules/thresholds.yml",
        {
            "prometheus": [
                "/etc/messwarte/prometheus/*/rules (content)",
                "/etc/messwarte/prometheus/*/rules/thresholds.yml is missing",
            ]
        },
        f"test -s {_ETC.format('prometheus')}/rules/thresholds.yml",
    ),
}
GRAFANA = {
    "accounts of Grafana": Row(
        f"""b=http://127.0.0.1:3000/api; {_CURL} {_JSON} -X PUT -d '{{"isGrafanaAdmin": true}}' """
        f"""$b/admin/users/{_VIEWER}/permissions; {_CURL} {_JSON} -X PATCH -d '{{"role": "Editor"}}' """
        f"""$b/orgs/1/users/{_VIEWER}; {_CURL} {_JSON} """
        f"""-d '{{"login": "own", "password": "long-enough-1"}}' $b/admin/users; """
        f"cd -P {_OPT.format('grafana')}/*/conf; echo '# by hand' >> defaults.ini",
        {
            "grafana": [
                "/opt/messwarte/grafana/*/conf/defaults.ini was changed",
                "accounts: no longer viewer: Viewer of organisation 1, password *",
                "accounts: now viewer: server admin, Editor of organisation 1, password *",
            ]
        },
        # Users that are not ours are the operator's.
        "python3 -I /etc/messwarte/grafana/current/probe.py | grep -q '^viewer: Viewer of' && "
        'python3 -c "import sqlite3; '
        "print(*sqlite3.connect('/var/lib/grafana/grafana.db').execute('SELECT login FROM user'))\" "
        f"| grep -q own && ! grep -q 'by hand' {_OPT.format('grafana')}/*/conf/defaults.ini",
        "grafana-server",
    )
}


@pytest.fixture(scope="module")
def changed() -> Iterator[Stack]:
    """A host that the tests of this module change by hand."""
    with lab_of("test-secrets-check") as lab:
        yield bring_up(lab, ["erp"])


def _verb(lab: str, *arguments: str, settings: Path = LAB_SETTINGS) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MESSWARTE_LAB": lab, "MESSWARTE_SETTINGS": str(settings)}
    command = [str(ROOT / "messwarte"), "deploy", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def _differences(lab: str, settings: Path = LAB_SETTINGS) -> dict[str, list[str]]:
    found = _verb(lab, "--check", "--json", settings=settings)
    assert found.returncode in {0, 1}, found.stderr
    return {one["component"]: one["differences"] for one in json.loads(found.stdout)}


def _started(machine: Machine) -> dict[str, str]:
    """Return when each service of the stack was started."""
    units = "'messwarte-*.service' 'prometheus*.service' 'redis-*' 'grafana-*' 'postgresql@*' 'postfix*.service'"
    shown = machine.succeed(f"systemctl show --property=Id,Type,ExecMainStartTimestampMonotonic {units}")
    found = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n")]
    # What a timer starts may have started meanwhile.
    return {one["Id"]: one["ExecMainStartTimestampMonotonic"] for one in found if one["Type"] != "oneshot"}


def _noted(machine: Machine) -> dict[str, Any]:
    """Return what the check compares each component with, but for what healing has to add: rows of the history."""
    notes = json.loads(machine.succeed(f"python3 -c {shlex.quote(_NOTES)}"))
    return {note["generation"]: _lasting(note) for note in notes}


def _lasting(note: dict[str, Any]) -> dict[str, Any]:
    probes = {name: [line for line in lines if not line[:1].isdigit()] for name, (_, lines) in note["probes"].items()}
    return {key: note[key] for key in ("files", "unit_files", "users", "units")} | {"probes": probes}


def test_every_change_by_hand_is_named_and_taken_back(changed: Stack) -> None:
    """All rows at once: the check says what the rows say, and no more; a deploy heals them, and restarts no more."""
    machine = changed.machine
    rows = ROWS | (GRAFANA if changed.has_grafana else {})
    assert _differences(changed.lab) == {}
    before, noted = _started(machine), _noted(machine)
    for row in rows.values():
        machine.succeed(row.change)
    wanted: dict[str, list[str]] = {}
    for row in rows.values():
        wanted |= {name: wanted.get(name, []) + said for name, said in row.said.items()}
    found = _differences(changed.lab)
    for name in wanted.keys() | found.keys():
        said, patterns = sorted(found.get(name, [])), sorted(wanted.get(name, []))
        unmatched = [one for one in said if not any(fnmatch.fnmatchcase(one, pattern) for pattern in patterns)]
        silent = [pattern for pattern in patterns if not fnmatch.filter(said, pattern)]
        assert (unmatched, silent) == ([], []), f"{name}: {said}"
    run = changed.deploy()
    assert (run.status, run.failed, run.changed.keys()) == (0, {}, wanted.keys()), run.said
    for title, row in rows.items():
        status, output = machine.execute(row.healed)
        assert status == 0, f"{title} was not healed: {output}"
    allowed = {f"{unit}.service" for row in rows.values() for unit in row.restarts.split()}
    after = _started(machine)
    assert {unit for unit in before if before[unit] != after.get(unit)} <= allowed
    assert _noted(machine) == noted
    assert _differences(changed.lab) == {}
    again = changed.deploy()
    assert (again.status, again.changed) == (0, {}), again.said
    assert _started(machine) == after


def test_package_that_was_removed_comes_back(changed: Stack) -> None:
    """Its configuration stayed, as dpkg's records say; that is not enough."""
    changed.machine.succeed("apt-get remove -y -qq prometheus-redis-exporter")
    assert _differences(changed.lab).keys() == {"packages", "redis_exporter"}
    run = changed.deploy()
    assert (run.status, run.failed) == (0, {}), run.said
    changed.machine.succeed("systemctl is-active prometheus-redis-exporter")
    assert _differences(changed.lab) == {}


def test_missing_secrets_are_not_made_anew(changed: Stack) -> None:
    """Neither by a deploy nor by a check, where a host has the stack already."""
    secrets = STATE / changed.lab / "secrets.yml"
    kept = secrets.rename(secrets.with_suffix(".kept"))
    try:
        for arguments in ([], ["--check"]):
            refused = _verb(changed.lab, *arguments)
            assert refused.returncode != 0
            said = refused.stdout + refused.stderr
            assert f"{secrets}: is missing, and erp has been deployed with its secrets" in said
            assert not secrets.exists()
    finally:
        kept.rename(secrets)
    assert _differences(changed.lab) == {}


def test_rollback_of_what_there_is_not(changed: Stack) -> None:
    """A typo is no success."""
    refused = _verb(changed.lab, "--rollback", "posgresql")
    assert refused.returncode == 1
    assert "there is no component `posgresql`; there are: " in refused.stderr


def test_setting_that_another_file_sets_again_is_no_success(changed: Stack) -> None:
    """A deploy does not take it for ours: it ends with the file's name, until the setting is taken out there."""
    other = "/etc/postgresql/17/main/conf.d/zz.conf"
    changed.machine.succeed(f"echo 'work_mem = 1111kB' > {other}")
    assert _differences(changed.lab) == {"postgresql": [f"settings: now work_mem = 1111kB in {other}"]}
    for _ in range(2):
        run = changed.deploy()
        assert run.status != 0
        assert f"work_mem is set again in {other}, after messwarte.conf: take it out there" in run.said
    changed.machine.succeed(f"rm {other}")
    assert changed.deploy().status == 0
    assert _differences(changed.lab) == {}


def test_nobody_can_change_redis_while_it_runs(changed: Stack) -> None:
    """There is no user that could: what Redis runs with is what its files say, and those are compared."""
    machine = changed.machine
    base = "redis-cli --no-auth-warning"
    logins = {
        "messwarte_monitor": "redis/current/monitor_password",
        "erp_tasks": "tasks/current/redis_password",
        "default": "tasks/current/redis_password",
    }
    for user, file in logins.items():
        login = f'REDISCLI_AUTH="$(cat /etc/messwarte/{file})" {base} --user {user}'
        for what in ("config set maxmemory 1gb", "acl setuser stranger on nopass", "acl load", "config rewrite"):
            answer = machine.succeed(f"{login} {what} 2>&1")
            assert "NOPERM" in answer or (user == "default" and "WRONGPASS" in answer and "NOAUTH" in answer), answer


def test_default_files_of_packages_reach_no_service(changed: Stack) -> None:
    """Neither by arguments nor by the environment: no service reads a file that is not ours."""
    units = " ".join(_started(changed.machine))
    shown = changed.machine.succeed(f"systemctl show --value --property=EnvironmentFiles,ExecStart {units}")
    files = {line.split()[0] for line in shown.splitlines() if line.startswith("/")}
    assert files <= {"/etc/messwarte/tasks/current/environment"}
    assert "$" not in shown


def test_check_says_what_would_go(changed: Stack, tmp_path: Path) -> None:
    """By name, component by component; looking takes nothing away."""
    found = _differences(changed.lab, changed.settings(tmp_path, redis={"mode": "off"}))
    assert found["only what is wanted"] == ["redis would go", "redis_exporter would go", "tasks would go"]
    assert found["prometheus"] == ["what is wanted is new"]
    changed.machine.succeed("systemctl is-active redis-server")


def test_check_of_a_clean_host_names_all_and_touches_nothing() -> None:
    """Every component is new; no secret is made; no file of the host is another one afterwards."""
    listing = (
        "find / -xdev '(' -path /var/log -o -path /var/lib/systemd -o -path /run -o -path /proc -o -path /sys ')' "
        "-prune -o -printf '%p %m %U:%G %s %T@ %l\\n' | sort"
    )
    with lab_of("test-secrets-clean") as lab:
        (machine,) = lab.up(["erp"]).values()
        machine.succeed("true")
        before = machine.succeed(listing)
        found = _verb(lab.name, "--check", "--json")
        assert found.returncode == 1, found.stderr
        differences = {one["component"]: one["differences"] for one in json.loads(found.stdout)}
        # Backups and a firewall are not wanted in a lab; Grafana may not be had.
        missing = set(ORDER) - differences.keys()
        assert missing <= {"grafana", "backup", "backup_store", "firewall"}
        assert set(map(tuple, differences.values())) == {("what is wanted is new",)}
        assert not (STATE / lab.name / "secrets.yml").exists()
        after = machine.succeed(listing)
        assert before.splitlines() == after.splitlines()
