"""Daemons that are killed come back by themselves, with all that was acknowledged."""

import datetime

import pytest

from lab import Machine
from tests.hosts.conftest import Stack

_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d erp"


def _main_pids(machine: Machine) -> dict[str, int]:
    """Return the main process of every running service of the stack."""
    patterns = (
        "'messwarte-*.service' 'prometheus*.service' 'redis-*.service' 'grafana-*.service' 'postgresql@*' 'postfix*'"
    )
    units = machine.succeed(
        f"systemctl list-units --plain --no-legend --state=running {patterns} | cut -d' ' -f1"
    ).split()
    return {unit: int(machine.succeed(f"systemctl show --value -p MainPID {unit}")) for unit in units}


def test_every_killed_service_comes_back_by_itself(stack: Stack) -> None:
    """kill -9 of all at once, three times: each runs again, all targets are up, and a deploy finds no drift."""
    machine = stack.machine
    units = _main_pids(machine)
    assert len(units) >= 11
    for _ in range(3):
        before = _main_pids(machine)
        assert before.keys() == units.keys()
        machine.succeed(f"kill -9 {' '.join(map(str, before.values()))}")
        for unit, pid in before.items():
            fresh = f'new=$(systemctl show --value -p MainPID {unit}); test "$new" != 0 && test "$new" != {pid}'
            machine.wait_until_succeeds(f"{fresh} && systemctl is-active {unit}")
    query = "curl -fsS http://127.0.0.1:9090/api/v1/targets?state=active"
    machine.wait_until_succeeds(
        f"""{query} | grep -q '"health":"up"' && ! {query} | grep -qE '"health":"(down|unknown)"'""", 90
    )
    again = stack.deploy()
    assert (again.changed, again.failed) == ({}, {}), again.said


def test_acknowledged_rows_jobs_and_silences_survive_kill_9(stack: Stack) -> None:
    """Each server is killed right after it has acknowledged; a silence is older than the maintenance interval."""
    machine = stack.machine
    kill = "kill -9 $(systemctl show --value -p MainPID {})"

    free = "SELECT min(id) FROM charge WHERE status <> 'gesperrt'"
    charge = machine.succeed(f'{_PSQL} -c "{free}"').strip()
    body = {"charge_id": int(charge), "lager_id": 1, "art": "Wareneingang", "menge": "7.125"}
    posted = stack.client(8000).post("/bewegungen", json=body)
    machine.succeed(kill.format("postgresql@17-main"))
    assert posted.status_code == 201, posted.text
    find = f"{_PSQL} -c 'SELECT menge FROM lagerbewegung WHERE id = {posted.json()['id']}'"  # noqa: S608
    assert float(machine.wait_until_succeeds(find)) == pytest.approx(7.125)

    # A process that is killed leaves the kernel what it wrote; that Redis waits for the disk, its file has to say.
    begun_with = machine.succeed("systemctl show --value --property=ExecStart redis-server")
    assert "redis-server /etc/messwarte/redis/current/redis.conf --supervised" in begun_with
    conf = machine.succeed("cat /etc/messwarte/redis/current/redis.conf").splitlines()
    assert {"appendonly yes", "appendfsync always"} <= set(conf)

    api = "http://127.0.0.1:8010"
    machine.wait_until_succeeds(f"curl -fsS {api}/healthz")
    job = stack.client(8010).post("/tasks/reports/monatsbericht", json={"monat": "2026-10"})
    machine.succeed(kill.format("redis-server"))
    assert job.status_code == 202, job.text
    machine.wait_until_succeeds(f"curl -fsS {api}{job.json()['status_url']} | grep -q '\"succeeded\"'", 150)

    silences = "/api/v2/silences"
    now = datetime.datetime.now(datetime.UTC)
    silence = {
        "matchers": [{"name": "alertname", "value": "Nothing", "isRegex": False}],
        "startsAt": now.isoformat(),
        "endsAt": (now + datetime.timedelta(hours=1)).isoformat(),
        "createdBy": "test",
        "comment": "kept over a crash",
    }
    known = stack.client(9093).post(silences, json=silence).raise_for_status().json()["silenceID"]
    machine.wait_until_succeeds("grep -q 'kept over a crash' /var/lib/prometheus/alertmanager/silences")
    machine.succeed(kill.format("prometheus-alertmanager"))
    machine.wait_until_succeeds(f"curl -fsS http://127.0.0.1:9093{silences} | grep -q {known}")
