"""A deployed host: what a second run, drift, a reboot, a mistake and a kill do to it."""

import re
import ssl
from pathlib import Path

import httpx
import psycopg
import pytest

from lab import Machine
from tests.hosts.conftest import Stack, started

_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"


def _psql(machine: Machine, statement: str, database: str = "erp") -> str:
    return machine.succeed(f'{_PSQL} -d {database} -c "{statement}"').strip()


def _targets(stack: Stack) -> dict[str, str]:
    answer = stack.client(9090).get("/api/v1/targets", params={"state": "active"})
    found = answer.json()["data"]["activeTargets"]
    return {f"{one['labels']['job']} {one['scrapeUrl']}": one["health"] for one in found}


def _wait_for_targets(machine: Machine) -> None:
    """Wait until no target is down or has not been asked yet."""
    query = "curl -fsS http://127.0.0.1:9090/api/v1/targets?state=active"
    machine.wait_until_succeeds(
        f"""{query} | grep -q '"health":"up"' && ! {query} | grep -qE '"health":"(down|unknown)"'"""
    )


def test_second_run_changes_nothing(stack: Stack) -> None:
    """Every component is as wanted, and nothing is restarted."""
    before = started(stack.machine)
    again = stack.deploy()
    assert (again.status, again.changed, again.failed) == (0, {}, {})
    assert {"postgresql", "redis", "prometheus", "erp"} <= set(again.same)
    assert started(stack.machine) == before


def test_everything_returns_after_a_reboot(stack: Stack) -> None:
    """All targets are up again without a deploy, and the next one changes nothing."""
    stack.machine.reboot()
    _wait_for_targets(stack.machine)
    jobs = {target.split()[0] for target in _targets(stack)}
    grafana = {"grafana"} if stack.has_grafana else set()
    assert jobs == {"prometheus", "alertmanager", "node", "postgres", "redis", "erp", "tasks"} | grafana
    assert stack.machine.succeed("systemctl is-system-running --wait").strip() == "running"
    again = stack.deploy()
    assert (again.changed, again.failed) == ({}, {})


@pytest.mark.parametrize(
    ("component", "damage", "healed"),
    [
        (
            "prometheus",
            "echo '# by hand' >> /etc/messwarte/prometheus/current/prometheus.yml",
            "! grep -q 'by hand' /etc/messwarte/prometheus/current/prometheus.yml",
        ),
        (
            "alertmanager",
            "chmod 0666 /etc/messwarte/alertmanager/current/alertmanager.yml",
            "test $(stat -c %a /etc/messwarte/alertmanager/current/alertmanager.yml) = 644",
        ),
        (
            "redis",
            "rm /etc/systemd/system/redis-server.service.d/messwarte.conf; systemctl daemon-reload",
            "systemctl cat redis-server | grep -q /etc/messwarte/redis/current/redis.conf",
        ),
        ("node_exporter", "systemctl stop prometheus-node-exporter", "systemctl is-active prometheus-node-exporter"),
        ("erp", "systemctl disable messwarte-erp", "systemctl is-enabled messwarte-erp"),
        (
            "tasks",
            "mv /opt/messwarte/tasks/current /root/away",
            "test -d /opt/messwarte/tasks/current/erp_tasks",
        ),
        (
            "postgresql",
            f"{_PSQL} -c 'ALTER SYSTEM SET max_connections = 50' -c 'ALTER SYSTEM SET work_mem = 4096'",
            "! grep -q max_connections /var/lib/postgresql/17/main/postgresql.auto.conf",
        ),
        (
            "database",
            f"{_PSQL} -c 'REVOKE pg_monitor FROM messwarte_monitor'",
            f"""{_PSQL} -c "SELECT pg_has_role('messwarte_monitor', 'pg_monitor', 'member')" | grep -qx t""",
        ),
        (
            "database",
            f"{_PSQL} -c 'ALTER ROLE erp_app SUPERUSER'",
            f"""{_PSQL} -c "SELECT rolsuper FROM pg_roles WHERE rolname = 'erp_app'" | grep -qx f""",  # noqa: S608
        ),
    ],
)
def test_drift_is_healed_and_only_its_component_changes(stack: Stack, component: str, damage: str, healed: str) -> None:
    """A file, a mode, a link, a unit, an application or a grant that was changed by hand comes back."""
    stack.machine.succeed(damage)
    stack.machine.fail(healed)
    run = stack.deploy()
    assert (run.status, run.changed) == (0, {component: ["erp"]}), run.said
    stack.machine.succeed(healed)


def test_bad_value_is_refused_before_the_running_one_is_touched(mended: Stack, tmp_path: Path) -> None:
    """`postgres -C` refuses shared_buffers of a memory so small; PostgreSQL is neither stopped nor changed."""
    begun = _psql(mended.machine, "SELECT pg_postmaster_start_time()")
    run = mended.deploy(mended.settings(tmp_path, postgresql={"memory": "1MB"}))
    assert run.status != 0
    assert re.search(r"postgresql: `runuser .*\n.*outside the valid range for parameter .?shared_buffers", run.said)
    assert _psql(mended.machine, "SELECT pg_postmaster_start_time()") == begun
    assert mended.deploy().changed == {}


def test_wrong_setting_stops_before_anything_is_touched(stack: Stack, tmp_path: Path) -> None:
    """The message names file and setting, without a trace; no operation begins."""
    path = stack.settings(tmp_path, redis={"memory": "lots"})
    run = stack.deploy(path)
    assert run.status != 0
    assert f"{path}: redis.memory: must be a size such as `512MB` or `8GB` (given: 'lots')" in run.said
    assert "Traceback" not in run.said
    assert "Starting operation" not in run.said


def test_component_that_is_switched_off_goes_and_its_data_stay(mended: Stack, tmp_path: Path) -> None:
    """Unit, links and files of Redis and of what needs it are gone; its data, and everything else, stay."""
    machine = mended.machine
    job = mended.client(8010).post("/tasks/reports/monatsbericht", json={"monat": "2026-10"}).json()
    done = f"curl -fsS http://127.0.0.1:8010{job['status_url']} | tee /dev/stderr | grep -q '\"succeeded\"'"
    machine.wait_until_succeeds(done)
    run = mended.deploy(mended.settings(tmp_path, redis={"mode": "off"}))
    assert run.status == 0, run.said
    assert set(run.changed) == {"only what is wanted", "gate", "prometheus"}
    assert "[erp] redis goes\n    [erp] redis_exporter goes\n    [erp] tasks goes\n" in run.said
    machine.fail("systemctl is-active redis-server", "systemctl is-enabled messwarte-tasks-worker")
    gone = machine.succeed("ls /etc/messwarte /opt/messwarte; find /etc/systemd -name 'messwarte*'; ss -Hltn")
    assert not re.search(r"redis|tasks|:6379|:9121|:801\d", gone)
    assert not any(target.startswith(("redis", "tasks")) for target in _targets(mended))
    back = mended.deploy()
    assert set(back.changed) == {"only what is wanted", "gate", "redis", "redis_exporter", "tasks", "prometheus"}
    machine.wait_until_succeeds(done)
    _wait_for_targets(machine)


def test_grafana_goes_on_where_its_package_cannot_be_had(mended: Stack, tmp_path: Path) -> None:
    """A repository that is out of reach takes nothing down: neither Grafana nor the links that lead there."""
    if not mended.has_grafana:
        pytest.skip("Grafana could not be had: no package file, its repository out of reach")
    nowhere = mended.settings(tmp_path, grafana={"source": {"repository": "http://127.0.0.1:9"}})
    run = mended.deploy(nowhere)
    assert (run.status, run.changed) == (0, {}), run.said
    assert "Grafana was left as it is: http://127.0.0.1:9 cannot be reached" in run.said
    mended.machine.succeed("systemctl is-active grafana-server")


def test_nothing_but_the_gate_listens_beyond_loopback(stack: Stack) -> None:
    """TCP and UDP; sshd is how the deploy gets in. The broker and the database are needed by this host alone."""
    sockets = stack.machine.succeed("ss -Hltunp").splitlines()
    beyond = {line.split()[4]: line for line in sockets if not line.split()[4].startswith(("127.0.0.", "[::1]"))}
    assert {where for where, line in beyond.items() if "nginx" not in line} == {"0.0.0.0:22", "[::]:22"}
    ports = {3000} if stack.has_grafana else set()
    ports |= {8000, 8001, 8010, 8011, 8012, 9090, 9093, 9100, 9121, 9187}
    assert {where for where, line in beyond.items() if "nginx" in line} == {
        f"{stack.machine.address}:{port}" for port in ports
    }


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_every_door_refuses_who_has_no_password_and_who_speaks_no_tls(stack: Stack) -> None:
    """Without a login, with a wrong one, over plain HTTP, and with a TLS version that is broken: nothing is told."""
    machine = stack.machine
    doors = re.findall(rf"{re.escape(machine.address)}:(\d+)", machine.succeed("ss -Hltn"))
    assert len(doors) >= 10
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    # What this machine's OpenSSL would refuse by itself must be left to the gate.
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    for port in map(int, doors):
        client = stack.client(port)
        path = "/api/dashboards/home" if port == 3000 else "/"
        for login in (None, ("operator", "wrong"), ("prometheus", ""), ("admin", "admin")):
            answer = client.get(path, auth=login)
            assert answer.status_code == 401, (port, login, answer.text)
        assert httpx.get(f"http://{machine.address}:{port}/", trust_env=False).status_code == 301
        with pytest.raises(httpx.ConnectError, match="protocol version"):
            httpx.get(f"https://{machine.address}:{port}/", trust_env=False, verify=old)
    if stack.has_grafana:
        assert stack.client(3000).get("/metrics", auth=None).status_code == 401


def _private_lines(value: str) -> list[str]:
    """Return the lines of a secret that tell it: not those of certificates, nor of PEM's frame."""
    key = re.sub(r"(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", "", value)
    return [line for line in key.splitlines() if line and not line.startswith("-----")]


def test_no_secret_can_be_read_by_others(stack: Stack, tmp_path: Path) -> None:
    """No secret is in the process list, the journal, a log, or a file that others can read."""
    secrets = stack.secrets
    grafana = {"grafana"} if stack.has_grafana else set()
    assert {"postgres_erp_app", "postgres_monitor", "redis_erp_tasks", *(f"{name}_admin" for name in grafana)} <= set(
        secrets
    )
    patterns = tmp_path / "patterns"
    # Of keys that have many lines, each line that is not public.
    private = {line for value in secrets.values() for line in _private_lines(value)}
    patterns.write_text("".join(f"{line}\n" for line in private))
    stack.machine.copy_to_host(patterns, "/root/patterns")
    stack.machine.succeed("chmod 600 /root/patterns")
    search = "grep -lF -f /root/patterns"
    # The search finds what is there: the files of root's alone.
    found = stack.machine.succeed(f"find /etc/messwarte -type f -print0 | xargs -0 {search}").split()
    grafana = {"grafana"} if stack.has_grafana else set()
    holders = {path.split("/")[3] for path in found}
    assert holders >= {"database", "erp", "redis", "redis_exporter", "tasks"} | grafana
    modes = stack.machine.succeed(f"stat -c '%U:%G %a' {' '.join(found)} | sort -u").splitlines()
    assert set(modes) <= {"root:root 600", "root:messwarte-gate 640", "root:postgres 640"}
    stack.machine.fail(
        f"find /etc /run /opt /var /tmp /usr/local -type f -perm /004 -print0 2>/dev/null | xargs -0 {search}",
        "ls -d /var/log/* | grep -v journal | xargs grep -rlF -f /root/patterns",
        f"journalctl --no-pager --output=export | {search}",
        f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | {search}",
        # Nor on a path that others can walk.
        "find /etc /run /opt /var /tmp -type d -perm -005 2>/dev/null | grep -E 'credentials/.+service'",
    )


def test_postgresql_runs_with_all_that_was_set(stack: Stack) -> None:
    """No setting waits for a restart, no line of pg_hba is wrong, and auto_explain took its threshold."""
    assert _psql(stack.machine, "SELECT name FROM pg_settings WHERE pending_restart") == ""
    assert _psql(stack.machine, "SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL") == ""
    assert _psql(stack.machine, "SHOW auto_explain.log_min_duration") == "1s"
    assert _psql(stack.machine, "SHOW max_connections") == "100"


def test_postgresql_lets_in_whom_it_must_and_nobody_else(stack: Stack) -> None:
    """erp_app comes in over loopback with its password, and nobody else does; from elsewhere there is no way in."""
    machine, password = stack.machine, stack.secrets["postgres_erp_app"]
    login = "PGPASSFILE=/root/pgpass psql -XAtw -c 'SELECT current_user' 'dbname=erp host={} user={}'"
    machine.succeed(
        "install -m 600 /etc/messwarte/erp/current/password /root/pgpass && sed -i 's/^/*:*:*:*:/' /root/pgpass"
    )
    assert machine.succeed(login.format("127.0.0.1", "erp_app")) == "erp_app\n"
    for user in ("messwarte_monitor", "postgres", "erp_owner"):
        assert "no pg_hba.conf entry" in machine.fail(login.format("127.0.0.1", user))
    assert "Peer authentication failed" in machine.fail(login.format("/var/run/postgresql", "erp_owner"))
    with pytest.raises(psycopg.OperationalError, match="Connection refused"):
        psycopg.connect(host=machine.address, dbname="erp", user="erp_app", password=password, connect_timeout=10)


def test_redis_keeps_tasks_and_knows_named_users_only(stack: Stack) -> None:
    """The default user is off; tasks are written to disk and never evicted; the monitor cannot read them."""
    machine = stack.machine
    users = machine.succeed("cat /etc/messwarte/redis/current/users.acl")
    assert users.splitlines()[0] == "user default off ~* &* +@all"
    assert "NOAUTH" in machine.succeed("redis-cli ping")
    as_user = 'REDISCLI_AUTH="$(cat /etc/messwarte/{})" redis-cli --user {} --no-auth-warning '
    monitor = as_user.format("redis/current/monitor_password", "messwarte_monitor")
    info = machine.succeed(f"{monitor} info")
    assert "maxmemory_policy:noeviction" in info
    assert "aof_enabled:1" in info
    assert f"maxmemory:{128 * 2**20}" in info
    assert "NOPERM" in machine.succeed(f"{monitor} get x", f"{monitor} config get requirepass")
    tasks = as_user.format("tasks/current/redis_password", "erp_tasks")
    assert "PONG" in machine.succeed(f"{tasks} ping")
    assert "NOPERM" in machine.succeed(f"{tasks} config get maxmemory")


def test_services_run_as_users_of_their_own(stack: Stack) -> None:
    """Our exporter, the ERP and the tasks each have a user that nothing else runs as."""
    listed: dict[str, set[str]] = {}
    for line in stack.machine.succeed("ps -eo user:32,unit:64 --no-headers").splitlines():
        user, unit = line.split()[:2]
        listed.setdefault(user, set()).add(unit)
    assert listed["messwarte-exporter"] == {"messwarte-pgstat-exporter.service"}
    assert listed["messwarte-erp"] == {"messwarte-erp.service", "messwarte-erp-load.service"}
    assert listed["messwarte-tasks"] == {"messwarte-tasks-worker.service", "messwarte-tasks-api.service"}
    ours = re.compile(r"messwarte|prometheus|redis|grafana|postgres")
    assert not [unit for unit in listed["root"] if ours.search(unit)]
