"""What `deploy --check` says of changes by hand, row by row, and that a deploy takes back exactly those."""

import fnmatch
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.components import ORDER
from lab import Machine
from tests.hosts.changes_by_hand import GRAFANA, ROWS
from tests.hosts.changes_in_database import DATABASE
from tests.hosts.conftest import LAB_SETTINGS, ROOT, STATE, Stack, bring_up, lab_of, started

_NOTES = (
    "import json, pathlib; print(json.dumps([json.loads(path.read_text()) "
    "for path in sorted(pathlib.Path('/var/lib/messwarte/applied').glob('*.json'))]))"
)


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


def _noted(machine: Machine) -> dict[str, Any]:
    """Return what the check compares each component with, but for what healing has to add: rows of the history."""
    notes = json.loads(machine.succeed(f"python3 -c {shlex.quote(_NOTES)}"))
    return {note["generation"]: _lasting(note) for note in notes}


def _lasting(note: dict[str, Any]) -> dict[str, Any]:
    probes = {name: [line for line in lines if not line[:1].isdigit()] for name, (_, lines) in note["probes"].items()}
    return {key: note[key] for key in ("files", "folders", "masked", "unit_files", "users", "units")} | {
        "probes": probes
    }


def test_every_change_by_hand_is_named_and_taken_back(changed: Stack) -> None:
    """All rows at once: the check says what the rows say, and no more; a deploy heals them, and restarts no more."""
    machine = changed.machine
    rows = ROWS | DATABASE | (GRAFANA if changed.has_grafana else {})
    assert _differences(changed.lab) == {}
    before, noted = started(machine), _noted(machine)
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
    told = [line.partition("] ")[2] for line in run.said.splitlines()]
    # What is for several components' units is told of the first.
    shared = {one for one in found["alertmanager"] if one.endswith("/prometheus-.service.d/zw.conf")}
    assert set(told) >= {one for said in found.values() for one in said[:10]} - shared
    for title, row in rows.items():
        status, output = machine.execute(row.healed)
        assert status == 0, f"{title} was not healed: {output}"
    allowed = {f"{unit}.service" for row in rows.values() for unit in row.restarts.split()}
    after = started(machine)
    assert {unit for unit in before if before[unit] != after.get(unit)} <= allowed
    assert _noted(machine) == noted
    assert _differences(changed.lab) == {}
    again = changed.deploy()
    assert (again.status, again.changed) == (0, {}), again.said
    assert started(machine) == after


def test_package_that_was_removed_comes_back(changed: Stack) -> None:
    """Its configuration stayed, as dpkg's records say; that is not enough."""
    changed.machine.succeed("apt-get remove -y -qq prometheus-redis-exporter")
    assert _differences(changed.lab).keys() == {"packages", "redis_exporter"}
    run = changed.deploy()
    assert (run.status, run.failed) == (0, {}), run.said
    changed.machine.succeed("systemctl is-active prometheus-redis-exporter")
    assert _differences(changed.lab) == {}


def test_database_that_is_down_is_said_once(changed: Stack) -> None:
    """What cannot be asked is not told as hundreds of things that are gone."""
    changed.machine.succeed("systemctl stop postgresql@17-main")
    found = _differences(changed.lab)
    assert found.pop("postgresql")[0] == "postgresql@17-main.service is inactive/enabled-runtime"
    assert found.keys() == {"database", "demo_data", "migrations"}
    for (said,) in found.values():
        assert "cannot be asked: psql: error: connection to server on socket" in said
    assert changed.deploy().status == 0
    assert _differences(changed.lab) == {}


def test_line_of_pg_hba_that_the_server_has_read_and_nobody_sees(changed: Stack) -> None:
    """A way in without a password, whose line was taken out of the file again."""
    machine, way_in = changed.machine, "psql -h 127.0.0.1 -U postgres -w -c 'SELECT 1'"
    # As after a reboot; it is Debian's, and reads nothing.
    machine.succeed("systemctl start postgresql.service")
    machine.succeed(
        "f=/etc/messwarte/postgresql/current/pg_hba.conf; cp $f /root/hba; echo 'host all all all trust' >> $f; "
        f"systemctl reload postgresql@17-main; sleep 1.5; cat /root/hba > $f; {way_in}"
    )
    (said,) = _differences(changed.lab).pop("postgresql")
    assert said.endswith("/pg_hba.conf was touched after postgresql@17-main.service had read it")
    assert changed.deploy().changed.keys() == {"postgresql"}
    assert machine.execute(way_in)[0] != 0
    assert _differences(changed.lab) == {}


def test_data_that_is_gone_is_not_begun_anew(changed: Stack) -> None:
    """Redis goes on with what it has open; a deploy says what is gone, and touches nothing."""
    machine = changed.machine
    machine.succeed("mv /var/lib/redis /var/lib/redis.moved")
    assert _differences(changed.lab) == {"redis": ["/var/lib/redis is missing"]}
    run = changed.deploy()
    assert run.status != 0
    assert "/var/lib/redis is gone with its data: put it back; or, to begin anew, stop its service" in run.said
    assert machine.execute("test -e /var/lib/redis")[0] != 0
    machine.succeed("mv /var/lib/redis.moved /var/lib/redis")
    assert changed.deploy().status == 0
    assert _differences(changed.lab) == {}


def test_list_of_what_belongs_here_that_is_damaged_is_written_anew(changed: Stack) -> None:
    changed.machine.succeed(": > /var/lib/messwarte/wanted.json")
    assert _differences(changed.lab) == {
        "only what is wanted": ["the list of what belongs on the host is not there or another"]
    }
    assert changed.deploy().changed.keys() == {"only what is wanted"}
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


@pytest.mark.parametrize(
    ("other", "include"),
    [
        ("/etc/postgresql/17/main/postgresql.conf", ""),
        ("/srv/messwarte.conf", "/etc/postgresql/17/main/conf.d/zz.conf"),
    ],
)
def test_setting_that_another_file_sets_again_is_no_success(changed: Stack, other: str, include: str) -> None:
    """In a file that is not put aside, such as Debian's own: a deploy ends with its name, until that is taken out."""
    machine = changed.machine
    machine.succeed(f"echo 'work_mem = 1111kB' >> {other}")
    if include:
        machine.succeed(f"echo \"include '{other}'\" > {include}")
    said, gone = _differences(changed.lab)["postgresql"]
    assert said == f"settings: now work_mem = 1111kB in {other}"
    assert gone.startswith("settings: no longer work_mem = ")
    for _ in range(2):
        run = changed.deploy()
        assert run.status != 0
        assert f"work_mem is set again in {other}, after messwarte.conf: take it out there" in run.said
    machine.succeed(f"rm {include} {other}" if include else f"sed -i '$d' {other}")
    assert changed.deploy().status == 0
    assert _differences(changed.lab) == {}


def test_database_that_is_gone_is_not_begun_anew(changed: Stack) -> None:
    """An empty one under its name would look well, and be archived over what a restore needs."""
    psql = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"
    machine = changed.machine
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'erp'"
    machine.succeed(
        f"{psql} -c 'ALTER DATABASE erp ALLOW_CONNECTIONS false' -c \"{ended}\" -c 'ALTER DATABASE erp RENAME TO kept'"
    )
    run = changed.deploy()
    assert run.status != 0
    assert "database erp is gone with its data" in run.said
    assert "or, to begin anew, COMMENT ON ROLE erp_owner IS NULL" in run.said
    assert "\nerp|" not in machine.succeed(f"{psql} --list")
    machine.succeed(f"{psql} -c 'ALTER DATABASE kept RENAME TO erp' -c 'ALTER DATABASE erp ALLOW_CONNECTIONS true'")
    assert changed.deploy().status == 0
    assert _differences(changed.lab) == {}


def test_earlier_configuration_that_was_changed_is_not_returned_to(changed: Stack, tmp_path: Path) -> None:
    """It is named, and the next deploy takes it away; what is nobody's generation stays."""
    machine = changed.machine
    other = changed.settings(tmp_path, redis={"memory": "77MB"})
    for settings in (other, LAB_SETTINGS):
        assert _verb(changed.lab, settings=settings).returncode == 0
    home = "/etc/messwarte/redis"
    current = machine.succeed(f"readlink -f {home}/current").strip()
    earlier = machine.succeed(f"ls -dt {home}/????????????????").split()
    before = next(path for path in earlier if path != current)
    machine.succeed(f"chmod 644 {before}/monitor_password; mkdir {home}/notes; echo mine > {home}/notes/mine")
    said = f"{before}/monitor_password (mode 644 instead of 600)"
    assert _differences(changed.lab) == {"redis": [said]}
    refused = _verb(changed.lab, "--rollback", "redis")
    assert refused.returncode != 0
    assert f"the earlier configuration is not as it was: {said}" in refused.stdout + refused.stderr
    assert changed.deploy().changed.keys() == {"redis"}
    assert machine.execute(f"test -e {before}")[0] != 0
    assert machine.succeed(f"cat {home}/notes/mine") == "mine\n"
    assert _differences(changed.lab) == {}
    machine.succeed(f"rm -r {home}/notes")


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
    units = " ".join(started(changed.machine))
    shown = changed.machine.succeed(f"systemctl show --value --property=EnvironmentFiles,ExecStart {units}")
    files = {line.split()[0] for line in shown.splitlines() if line.startswith("/")}
    assert files <= {"/etc/messwarte/tasks/current/environment"}
    assert "$" not in shown


def test_check_says_what_goes_and_what_changes(changed: Stack, tmp_path: Path) -> None:
    """By name, component by component; looking takes nothing away."""
    found = _differences(changed.lab, changed.settings(tmp_path, redis={"mode": "off"}))
    assert found["only what is wanted"] == ["redis goes", "redis_exporter goes", "tasks goes"]
    assert found["prometheus"] == ["prometheus.yml changes"]
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
        assert "package postgresql-17 is missing" in differences.pop("packages")
        del differences["only what is wanted"]
        assert set(map(tuple, differences.values())) == {("is not there yet",)}
        assert not (STATE / lab.name / "secrets.yml").exists()
        after = machine.succeed(listing)
        assert before.splitlines() == after.splitlines()
