"""A newcomer's commands on a real host, in their order: up, status, a broken part, deploy, prove, down."""

import json
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from lab import Lab, Machine
from proof.access import Access

ROOT = Path(__file__).resolve().parents[2]
NAME = "first-light"


def _trusting(authority: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ROOT / authority.split(" (", maxsplit=1)[0]))


@dataclass
class Light:
    """The lab that `up` made, and what `up` printed."""

    output: list[str]
    machine: Machine

    @staticmethod
    def run(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command line on this lab."""
        command = [sys.executable, "-m", "cli", *arguments, "--lab", NAME]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout)

    def status(self) -> tuple[int, dict[str, dict[str, str]]]:
        """Return `status`' exit status, and its lines by component."""
        done = self.run("status", "--json")
        return done.returncode, {line["component"]: line for line in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def light() -> Iterator[Light]:
    """A lab as `up` makes it; whatever the tests leave of it is taken down."""
    try:
        done = Light.run("up")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        yield Light(done.stdout.splitlines(), Lab(NAME, ROOT / ".lab").machines()["erp"])
    finally:
        Light.run("down")


def test_up_ends_with_addresses_that_answer_and_the_place_of_the_passwords(light: Light) -> None:
    rows = {line[2:14].strip(): line[15:] for line in light.output if line.startswith("  ")}
    access = Access.of(ROOT / rows["Secrets"])
    for name in ("Prometheus", "Alertmanager", "Demo ERP", "Task queue"):
        assert access.client(rows[name]).get(rows[name]).is_success
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(rows[name], trust_env=False)
        assert httpx.get(rows[name], trust_env=False, verify=_trusting(rows["Authority"])).status_code == 401
    assert '"health":"up"' in subprocess.check_output(shlex.split(rows["By script"]), cwd=ROOT, text=True)
    assert "DeadMansSwitch" in subprocess.check_output(shlex.split(rows["Alert mails"]), cwd=ROOT, text=True)
    secrets = ROOT / rows["Secrets"]
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(secrets.read_text())["grafana_viewer"]
    assert light.output[-1].startswith("next: ./messwarte status")


def test_status_is_green(light: Light) -> None:
    status, lines = light.status()
    assert status == 0
    assert all(line["healthy"] for line in lines.values())
    assert {"postgresql", "redis", "prometheus", "alertmanager", "pgstat_exporter", "tasks", "erp"} <= set(lines)
    assert all(set(line) == {"component", "host", "url", "healthy", "detail"} for line in lines.values())


def test_status_names_what_is_broken_and_deploy_mends_it(light: Light) -> None:
    light.machine.succeed("systemctl stop redis-server")
    status, lines = light.status()
    assert status == 1
    assert not lines["redis"]["healthy"]
    assert "redis-server.service is inactive" in lines["redis"]["detail"]
    assert lines["prometheus"]["healthy"]

    check = light.run("deploy", "--check")
    assert (check.returncode, "erp: redis differs" in check.stdout) == (1, True)
    mended = light.run("deploy")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert light.run("deploy", "--check").returncode == 0
    assert light.status()[0] == 0


def test_status_tells_a_host_that_is_gone(light: Light) -> None:
    light.machine.block()
    try:
        status, lines = light.status()
    finally:
        light.machine.unblock()
    assert status == 1
    assert "cannot be reached" in lines["host"]["detail"]


def test_a_report_runs_as_a_task_and_shows_its_progress(light: Light) -> None:
    tasks = Access.of(ROOT / ".lab" / NAME / "secrets.yml").client(f"https://{light.machine.address}:8010")
    started = tasks.post("/tasks/reports/monatsbericht", json={"monat": "2026-10"})
    assert started.status_code == 202
    with tasks.stream("GET", started.json()["events_url"], timeout=60) as answer:
        data = [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")]
    assert data[-1]["state"] == "succeeded"


def test_migrations_are_applied(light: Light) -> None:
    done = light.run("migrate", "status")
    assert done.returncode == 0, done.stdout + done.stderr
    indices = light.machine.succeed(
        "runuser -u postgres -- psql -XAtq -d erp -c \"SELECT relname FROM pg_class WHERE relname LIKE 'idx_%'\""
    )
    assert set(indices.split()) == {"idx_artikel_kat_name", "idx_charge_art_date", "idx_lagerbewegung_charge_datum"}


def test_panels_and_alerts_are_proved(light: Light) -> None:
    done = light.run("prove", "--keep", "--json")
    claims = json.loads(done.stdout) if done.stdout else []
    assert done.returncode == 0, json.dumps(claims, indent=2) + done.stderr[-3000:]
    if not light.status()[1].get("grafana"):
        pytest.skip("all proved but Grafana, which could not be had: no package file, its repository out of reach")
    assert any("viewer of Grafana" in claim["claim"] for claim in claims)


def test_down_leaves_nothing(light: Light) -> None:
    bridge = json.loads((ROOT / ".lab" / NAME / "lab.json").read_text())["bridge"]
    assert light.run("down").returncode == 0
    assert not (ROOT / ".lab" / NAME).exists()
    assert not Path(f"/sys/class/net/{bridge}").exists()
    assert NAME not in Path("/proc/self/mounts").read_text()
    assert not Path(f"/var/lib/messwarte/labs/{NAME}").exists()
