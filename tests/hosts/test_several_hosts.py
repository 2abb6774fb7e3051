"""Six hosts: TLS between them, a firewall round each, one that is down, sudo with a password."""

import os
import pty
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from lab import Machine
from lab.system import wait_until
from proof.prometheus import Prometheus
from tests.hosts.conftest import ROOT, STATE, Run, Stack, lab_of, started

HOSTS = ["database", "cache", "monitoring", "worker", "worker2", "app"]
_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d erp"
_ENCRYPTED = (
    "SELECT DISTINCT client_addr, ssl, version FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) "
    "WHERE client_addr <> '127.0.0.1'"
)
# Without Grafana, which may not be had.
_TARGETS = 15


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the settings that the hosts are deployed with."""
    return tmp_path_factory.mktemp("settings")


@pytest.fixture(scope="module")
def hosts(settings: Path) -> Iterator[Stack]:
    """Each component on the host of its group; the first run finds everything in the order in which it is needed."""
    with lab_of("test-hosts") as lab:
        stack = Stack(lab.name, lab.up(HOSTS))
        stack.settings(settings, network=_network(stack))
        run = _deploy(stack, settings)
        assert (run.status, run.failed) == (0, {}), run.said
        yield stack


def _network(hosts: Stack) -> dict[str, object]:
    """Return network settings with a firewall; people come from this machine alone."""
    gateway = hosts.machines["app"].address.rpartition(".")[0] + ".1"
    return {"firewall": True, "people": [f"{gateway}/32"]}


def _deploy(stack: Stack, settings: Path) -> Run:
    return stack.deploy(settings / "settings.yml")


def _prometheus(hosts: Stack) -> Prometheus:
    return Prometheus(hosts.client(9090, "monitoring"))


def _wait_until_all_are_up(hosts: Stack) -> None:
    prometheus = _prometheus(hosts)
    grafana = hosts.machines["monitoring"].execute("test -d /etc/messwarte/grafana")[0] == 0

    def up() -> bool:
        try:
            found = prometheus.targets()
        except httpx.HTTPError:
            return False
        return len(found) == _TARGETS + grafana and set(found.values()) == {"up"}

    wait_until(up, "all targets are up", 120, 1)


def test_everything_works_together_and_a_second_run_changes_nothing(hosts: Stack, settings: Path) -> None:
    _wait_until_all_are_up(hosts)
    again = _deploy(hosts, settings)
    assert (again.status, again.changed, again.failed) == (0, {}, {}), again.said
    for worker in ("worker", "worker2"):
        client = hosts.client(8010, worker)
        job = client.post("/tasks/reports/monatsbericht", json={"monat": "2026-10"}).json()
        wait_until(lambda: client.get(job["status_url"]).json()["state"] == "succeeded", "the report is done", 60)  # noqa: B023


def test_what_goes_from_host_to_host_is_encrypted(hosts: Stack) -> None:
    """PostgreSQL says so of each of its sessions from elsewhere; the broker answers nobody who speaks no TLS."""
    sessions = hosts.machines["database"].succeed(f'{_PSQL} -c "{_ENCRYPTED}"')
    found = {tuple(line.split("|")) for line in sessions.split()}
    assert found >= {(hosts.machines["app"].address, "t", "TLSv1.3")}
    assert {encrypted for _, encrypted, _ in found} == {"t"}
    worker, cache = hosts.machines["worker"], hosts.machines["cache"].address
    plain = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{cache}/6379; printf \"PING\\r\\n\" >&3; cat <&3'"
    assert "NOAUTH" not in worker.execute(plain)[1]
    secured = (
        "import socket, ssl; trusted = ssl.create_default_context(cafile='/etc/messwarte/tasks/current/ca.pem'); "
        f"one = trusted.wrap_socket(socket.create_connection(('{cache}', 6379), 3), server_hostname='{cache}'); "
        "one.sendall(b'PING\\r\\n'); print(one.version(), one.recv(99))"
    )
    assert re.match(r"TLSv1\.3 b'-NOAUTH", worker.succeed(f'python3 -c "{secured}"'))


def test_a_port_scan_finds_only_what_is_meant(hosts: Stack) -> None:
    """All 65,535 ports of each host, from a worker and from an address that belongs to nobody here."""
    scanner = hosts.machines["worker2"]
    scanner.succeed("apt-get install -y -qq --no-install-recommends nmap")
    machines = {name: machine for name, machine in hosts.machines.items() if machine is not scanner}
    worker = {"database": {5432}, "cache": {6379}}
    assert _scan(scanner, machines) == {name: {22} | worker.get(name, set()) for name in machines}
    # One address further than the lab's hosts have: neither one of them nor people's.
    stranger = scanner.address.rpartition(".")[0] + ".77"
    scanner.succeed(f"ip addr add {stranger}/24 dev host0")
    assert _scan(scanner, machines, f"-S {stranger} -e host0") == {name: {22} for name in machines}
    scanner.succeed(f"ip addr del {stranger}/24 dev host0")


def _scan(scanner: Machine, machines: dict[str, Machine], options: str = "") -> dict[str, set[int]]:
    addresses = " ".join(machine.address for machine in machines.values())
    said = scanner.succeed(
        f"nmap -Pn -n -sS -p- --min-rate 20000 --max-retries 2 {options} -oG - {addresses}", timeout=300
    )
    found = {
        line.split()[1]: set(map(int, re.findall(r"(\d+)/open/", line)))
        for line in said.splitlines()
        if "/open" in line
    }
    return {name: found.get(machine.address, set()) for name, machine in machines.items()}


def test_people_reach_what_is_theirs_and_need_a_password(hosts: Stack) -> None:
    """From this machine: pages and APIs, each of which refuses who has no password; never databases or exporters."""
    theirs = {"monitoring": {9090, 9093}, "app": {8000}, "worker": {8010}, "worker2": {8010}}

    def answers(door: tuple[str, int]) -> tuple[int, int] | None:
        """Return the status without a password and with one, or None where nobody answers."""
        client = hosts.client(door[1], door[0])
        try:
            return client.get("/", auth=None, timeout=2).status_code, client.get("/").status_code
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return None

    ports = (5432, 6379, 8000, 8001, 8010, 8011, 8012, 9090, 9093, 9100, 9121, 9187)
    doors = [(name, port) for name in hosts.machines for port in ports]
    with ThreadPoolExecutor(len(doors)) as pool:
        found = dict(zip(doors, pool.map(answers, doors), strict=True))
    for (name, port), statuses in found.items():
        if port in theirs.get(name, set()):
            assert statuses is not None, (name, port)
            assert statuses[0] == 401, (name, port)
            assert statuses[1] not in range(400, 404), (name, port)
        else:
            assert statuses is None, (name, port)


def test_the_database_wants_tls_and_a_password_of_whom_it_lets_in(hosts: Stack) -> None:
    """From the application's host: no session without TLS, none with a wrong password, none of other roles."""
    app, database = hosts.machines["app"], hosts.machines["database"].address
    app.succeed(
        "install -m 600 /etc/messwarte/erp/current/password /root/pgpass && sed -i 's/^/*:*:*:*:/' /root/pgpass"
    )
    app.succeed("apt-get install -y -qq --no-install-recommends postgresql-client-17")
    dsn = f"host={database} dbname=erp user={{}} sslmode={{}} sslrootcert=/etc/messwarte/erp/current/ca.pem"
    login = f"PGPASSFILE={{}} psql -XAtwc 'SELECT current_user' '{dsn}'"
    assert app.succeed(login.format("/root/pgpass", "erp_app", "verify-full")) == "erp_app\n"
    assert "no pg_hba.conf entry" in app.fail(login.format("/root/pgpass", "erp_app", "disable"))
    assert "no password supplied" in app.fail(login.format("/dev/null", "erp_app", "verify-full"))
    assert "no pg_hba.conf entry" in app.fail(login.format("/root/pgpass", "postgres", "verify-full"))
    with pytest.raises(psycopg.OperationalError, match="timeout expired"):
        psycopg.connect(host=database, dbname="erp", user="erp_app", password="x", connect_timeout=2)


def test_rules_that_were_changed_by_hand_come_back(hosts: Stack, settings: Path) -> None:
    """Rules in the kernel are state that is no file."""
    cache = hosts.machines["cache"]
    cache.succeed("nft insert rule inet messwarte input tcp dport 1-65535 accept")
    run = _deploy(hosts, settings)
    assert (run.status, run.changed) == (0, {"firewall": ["cache"]}), run.said
    assert "1-65535" not in cache.succeed("nft list table inet messwarte")


def test_a_host_that_is_down_fails_alone_and_catches_up(hosts: Stack, settings: Path) -> None:
    """It is named, the others get what is new, nobody forgets it, and the next run brings it what it missed."""
    machine = hosts.machines["worker2"]
    hosts.settings(settings, network=_network(hosts), tasks={"concurrency": 3}, prometheus={"retention_size": "3GB"})
    machine.crash()
    run = _deploy(hosts, settings)
    assert run.status != 0
    assert "worker2" in run.said
    assert run.changed == {"tasks": ["worker"], "prometheus": ["monitoring"]}
    assert machine.address in hosts.machines["monitoring"].succeed(
        "cat /etc/messwarte/prometheus/current/prometheus.yml"
    )
    machine.start()
    run = _deploy(hosts, settings)
    assert (run.status, run.changed) == (0, {"tasks": ["worker2"]}), run.said
    assert "CONCURRENCY=3" in machine.succeed("cat /etc/messwarte/tasks/current/environment")


def test_every_host_returns_after_a_reboot_with_its_firewall(hosts: Stack, settings: Path) -> None:
    """All at once, in whatever order they come up: nobody has to do anything, and a deploy has nothing to change."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(Machine.reboot, hosts.machines.values()))
    _wait_until_all_are_up(hosts)
    for machine in hosts.machines.values():
        assert "policy drop" in machine.succeed("nft list table inet messwarte")
    again = _deploy(hosts, settings)
    assert (again.status, again.changed, again.failed) == (0, {}, {}), again.said


def test_certificates_are_renewed_by_the_next_run_without_an_interruption(hosts: Stack, settings: Path) -> None:
    """A certificate that is missing on the control machine is made anew; gates and PostgreSQL take it by a reload."""
    database = hosts.machines["database"]
    before, serial = started(database), _serial(hosts, "database")
    path = STATE / hosts.lab / "secrets.yml"
    kept = {name: value for name, value in hosts.secrets.items() if name != "database_certificate"}
    path.write_text("".join(f"{name}: {_quoted(value)}\n" for name, value in kept.items()))
    run = _deploy(hosts, settings)
    assert (run.status, run.changed) == (0, {"gate": ["database"], "postgresql": ["database"]}), run.said
    assert started(database) == before
    wait_until(lambda: _serial(hosts, "database") != serial, "the new certificate is shown", 10)
    _wait_until_all_are_up(hosts)


def _quoted(value: str) -> str:
    return '"' + value.replace("\n", "\\n") + '"'


def _serial(hosts: Stack, name: str) -> str:
    """Return the serial number of the certificate that PostgreSQL shows to the application's host."""
    command = f"openssl s_client -connect {hosts.machines[name].address}:5432 -starttls postgres </dev/null 2>/dev/null"
    return hosts.machines["app"].succeed(f"{command} | openssl x509 -noout -serial")


def test_sudo_with_a_password_works(hosts: Stack, settings: Path) -> None:
    """A user who is not root: an application is brought again, a unit started, and then there is nothing to do."""
    password = secrets.token_urlsafe(12)
    for machine in hosts.machines.values():
        machine.succeed(
            "apt-get install -y -qq --no-install-recommends sudo && useradd -m -s /bin/bash -G sudo deploy && "
            "install -d -o deploy -m 700 /home/deploy/.ssh && "
            "install -o deploy -m 600 /root/.ssh/authorized_keys /home/deploy/.ssh/ && "
            f"echo deploy:{password} | chpasswd"
        )
    worker = hosts.machines["worker"]
    worker.succeed("rm -r $(readlink /opt/messwarte/tasks/current); systemctl stop messwarte-tasks-api")
    status, said = _deploy_at_terminal(hosts, settings, password)
    assert status == 0, said
    worker.succeed("systemctl is-active messwarte-tasks-api")
    assert password not in said
    again = _deploy(hosts, settings)
    assert (again.status, again.changed) == (0, {}), again.said


def _deploy_at_terminal(hosts: Stack, settings: Path, password: str) -> tuple[int, str]:
    """Deploy as an operator at a terminal who types the password once; return exit status and what was shown."""
    command = [str(ROOT / ".venv/bin/pyinfra"), "-y", "--ssh-user", "deploy", "--sudo", "--same-sudo-password"]
    environment = os.environ | {"MESSWARTE_LAB": hosts.lab, "MESSWARTE_SETTINGS": str(settings / "settings.yml")}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(command[0], [*command, "inventories/lab.py", "deploy/stack.py"], environment)  # noqa: S606
    shown = ""
    asked = False
    while True:
        try:
            shown += os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            break
        if not asked and "assword" in shown:
            asked = True
            os.write(terminal, f"{password}\n".encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown
