"""Secrets that are rotated: after one command nothing takes the old ones, and everything works with the new ones."""

import base64
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lab.system import wait_until
from proof.access import Access, load_options
from settings import scram_verifier
from tests.hosts.conftest import ROOT, STATE, Stack, bring_up, lab_of

_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"
_DERIVED = ("_scram", "_bcrypt", "_certificate")
# Prints the arguments of every process that hold a secret of a file, until it is told to stop; notes what else it saw.
_SAMPLER = """
import os, pathlib, re, sys, yaml
file, stop, looks = map(pathlib.Path, sys.argv[1:])
seen, told = set(), set()
while not stop.exists():
    known = yaml.safe_load(file.read_text())
    values = [re.sub("(?s)-----BEGIN CERT.*?-----END CERTIFICATE-----", "", v) for n, v in known.items() if n != "made"]
    lines = [l.encode() for v in values for l in v.splitlines() if l and not l.startswith("-----")]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = pathlib.Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        words = arguments.replace(b"\\0", b" ").strip()
        if words not in seen:
            seen.add(words)
            if any(line in arguments for line in lines) and words not in told:
                told.add(words)
                print(words[:60], flush=True)
looks.write_text("\\n".join(sorted(word[:60].decode(errors="replace") for word in seen)))
"""
_REPORT = "deploy.operations.HostReport"
_KEPT = {"grafana_secret_key", "smtp_password"}


@pytest.fixture(scope="module")
def rotated() -> Iterator[Stack]:
    """A host whose passwords the tests of this module change."""
    with lab_of("test-secrets") as lab:
        yield bring_up(lab, ["erp"])


def _file(stack: Stack) -> Path:
    return STATE / stack.lab / "secrets.yml"


def _values(stack: Stack) -> dict[str, str]:
    return {name: value for name, value in stack.secrets.items() if name != "made" and not name.endswith(_DERIVED)}


def _command(stack: Stack, *arguments: str) -> tuple[list[str], dict[str, str]]:
    return [str(ROOT / "messwarte"), *arguments], os.environ | {"MESSWARTE_LAB": stack.lab}


def _run(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, environment = _command(stack, *arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def _lets_in(stack: Stack, secrets: dict[str, str]) -> dict[str, bool]:
    """Ask each server whether it takes these passwords."""
    machine = stack.machine
    found = {}
    machine.succeed("install -m 600 /dev/null /root/old")
    for user in ("erp_tasks", "messwarte_monitor"):
        password = secrets["redis_erp_tasks" if user == "erp_tasks" else "redis_monitor"]
        ask = f"REDISCLI_AUTH={password} redis-cli --user {user} --no-auth-warning ping 2>&1"
        answer = machine.succeed(f"{ask} || true")
        assert "PONG" in answer or "WRONGPASS" in answer, answer
        found[f"redis {user}"] = "PONG" in answer
    login = f"PGPASSWORD={secrets['postgres_erp_app']} psql -XAtw -c 'SELECT 1' 'dbname=erp host=127.0.0.1"
    status, answer = machine.execute(f"{login} user=erp_app'")
    assert status == 0 or "password authentication failed" in answer, answer
    found["postgresql erp_app"] = status == 0
    # No line of pg_hba lets the monitor in over TCP here: its verifier is worked out instead.
    role = "SELECT rolpassword FROM pg_authid WHERE rolname = 'messwarte_monitor'"
    verifier = machine.succeed(f'{_PSQL} -c "{role}"').strip()
    salt = base64.b64decode(verifier.split("$")[1].split(":")[1])
    found["postgresql messwarte_monitor"] = scram_verifier(secrets["postgres_monitor"], salt) == verifier
    for user in ("admin", "viewer") if stack.has_grafana else ():
        answer_code = stack.client(3000).get("/api/org", auth=(user, secrets[f"grafana_{user}"])).status_code
        assert answer_code in {200, 401}
        found[f"grafana {user}"] = answer_code == 200
    for user in ("operator", "prometheus"):
        answer_code = stack.client(9090).get("/", auth=(user, secrets[f"gate_{user}"])).status_code
        assert answer_code in {302, 401}
        found[f"gate {user}"] = answer_code == 302
    trusted = Access(_certificate(secrets["tls_authority"]), secrets["gate_operator"])
    with contextlib.suppress(httpx.ConnectError):
        trusted.client(f"https://{machine.address}:9090").get("/")
        found["certificates"] = True
    found.setdefault("certificates", False)
    return found


def _certificate(pem: str) -> str:
    return pem[: pem.index("-----BEGIN PRIVATE KEY-----")]


def _all_works(stack: Stack) -> None:
    """Every component is well, every target up, the ERP answers from the database, a task runs through."""
    machine = stack.machine
    health = _run(stack, "status")
    assert health.returncode == 0, health.stdout
    query = "curl -fsS http://127.0.0.1:9090/api/v1/targets?state=active"
    machine.wait_until_succeeds(
        f"""{query} | grep -q '"health":"up"' && ! {query} | grep -qE '"health":"(down|unknown)"'"""
    )
    assert stack.client(8000).get("/artikel/1/bestand").status_code == 200
    job = stack.client(8010).post("/tasks/reports/monatsbericht", json={"monat": "2026-10"}).json()
    machine.wait_until_succeeds(f"curl -fsS http://127.0.0.1:8010{job['status_url']} | grep -q '\"succeeded\"'")
    again = stack.deploy()
    assert (again.status, again.changed, again.failed) == (0, {}, {}), again.said


def test_rotating_all_leaves_no_use_for_the_old_ones(rotated: Stack) -> None:
    """PostgreSQL, Redis and Grafana refuse what they took before; a browser's session ends; the file keeps all else."""
    file = _file(rotated)
    file.write_text(f"# the mail team's\nsmtp_password: hunter2\n{file.read_text()}")
    old = _values(rotated)
    assert all(_lets_in(rotated, old).values())
    browser = rotated.client(3000)
    browser.auth = httpx.Auth()
    if rotated.has_grafana:
        browser.post("/login", json={"user": "viewer", "password": old["grafana_viewer"]}).raise_for_status()
        assert browser.get("/api/user").status_code == 200
    load_options(STATE / rotated.lab, f"https://{rotated.machine.address}:8000")
    done = _run(rotated, "secrets", "rotate", "--all")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    new = _values(rotated)
    assert {name for name in old if old[name] == new[name]} == _KEPT
    assert not [name for name in new if new[name] in said or old[name] in said]
    assert "left as it is: smtp_password: the mail server gives it" in said
    assert "left as it is: grafana_secret_key: " in said
    assert file.read_text().startswith("# the mail team's\nsmtp_password: hunter2\n")
    assert file.stat().st_mode & 0o777 == 0o600
    taken = _lets_in(rotated, old)
    assert taken
    assert not any(taken.values()), taken
    assert all(_lets_in(rotated, new).values())
    # What `messwarte load` and curl use.
    pem, netrc = ((STATE / rotated.lab / name).read_text() for name in ("ca.pem", "netrc"))
    assert pem == _certificate(new["tls_authority"])
    assert new["gate_operator"] in netrc
    if rotated.has_grafana:
        again = rotated.client(3000)
        again.auth, again.cookies = httpx.Auth(), browser.cookies
        assert again.get("/api/user").status_code == 401
    _all_works(rotated)


def test_what_a_killed_rotation_began_the_next_deploy_completes(rotated: Stack) -> None:
    """Killed when the file is written, with the deploy begun or not: in between the old ones may hold, then none."""
    old = _values(rotated)
    command, environment = _command(rotated, "secrets", "rotate", "--all")
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_until(lambda: _values(rotated)["redis_monitor"] != old["redis_monitor"], "new secrets in the file", 60, 0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    found = _run(rotated, "deploy", "--check")
    assert found.returncode == 1, found.stdout + found.stderr
    assert rotated.deploy().status == 0
    new = _values(rotated)
    assert not any(_lets_in(rotated, old).values())
    assert all(_lets_in(rotated, new).values())
    _all_works(rotated)


def test_one_secret_is_rotated_alone_and_without_a_deploy_at_the_next(rotated: Stack) -> None:
    """Only those who use it differ until then; what cannot be made here is refused before anything is changed."""
    old = _values(rotated)
    refused = _run(rotated, "secrets", "rotate", "redis_monitor", "smtp_password")
    assert refused.returncode == 2
    assert "nothing was rotated.\nsmtp_password: the mail server gives it" in refused.stderr
    assert _values(rotated) == old
    assert _run(rotated, "secrets", "rotate", "redis_monitor", "--no-deploy").returncode == 0
    assert all(_lets_in(rotated, old).values())
    changed = rotated.deploy().changed
    assert changed.keys() == {"redis", "redis_exporter"}
    assert _lets_in(rotated, old)["redis messwarte_monitor"] is False
    assert all(_lets_in(rotated, _values(rotated)).values())


def test_no_secret_is_seen_while_a_deploy_brings_it(rotated: Stack, tmp_path: Path) -> None:
    """Not in any process' arguments, here or on the host, nor in what pyinfra says, however much it is to say."""
    # Whoever guesses at Grafana's passwords until it lets nobody try any more keeps no deploy from its work.
    for _ in range(7 if rotated.has_grafana else 0):
        assert rotated.client(3000).get("/api/org", auth=("admin", "guess")).status_code == 401
    assert _run(rotated, "secrets", "rotate", "--all", "--no-deploy").returncode == 0
    # Also what is made of the new ones by the deploy itself.
    assert _run(rotated, "deploy", "--check").returncode == 1
    stop, looks = tmp_path / "stop", tmp_path / "looks"
    command = [sys.executable, "-c", _SAMPLER, str(_file(rotated)), str(stop), str(looks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sampler:
        pyinfra = [str(ROOT / ".venv/bin/pyinfra"), "-y", "-vvv", "--debug", "--diff", "inventories/lab.py"]
        environment = os.environ | {"MESSWARTE_LAB": rotated.lab}
        said = [
            subprocess.run([*pyinfra, *what], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            for what in (
                ["deploy/stack.py"],
                ["debug-inventory"],
                ["fact", "deploy.operations.HostReport", "verb=report"],
            )
        ]
        said += [_run(rotated, "status", "--json"), _run(rotated, "deploy", "--check", "--json")]
        stop.touch()
        seen = sampler.communicate(timeout=60)[0]
    assert [one.returncode for one in said] == [0] * 5, said[0].stderr[-3000:]
    # A host's processes are this machine's, too: the sampler saw those of the deploy.
    assert "python3 -I -" in looks.read_text()
    assert seen == ""
    texts = "".join(one.stdout + one.stderr for one in said)
    assert "Starting operation" in texts
    assert not [name for name, lines in _told(rotated).items() if any(line in texts for line in lines)]
    _all_works(rotated)


def _told(stack: Stack) -> dict[str, list[str]]:
    """Return the lines of each secret by which one would know it: not certificates, nor PEM's frame."""
    public = re.compile(r"(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----")
    found = {name: public.sub("", value).splitlines() for name, value in stack.secrets.items() if name != "made"}
    return {name: [line for line in lines if line and not line.startswith("-----")] for name, lines in found.items()}


def test_list_shows_no_value(rotated: Stack) -> None:
    """Names, what they are for, and which were given."""
    shown = _run(rotated, "secrets", "list").stdout
    assert not [name for name, value in _values(rotated).items() if value in shown]
    assert "smtp_password       given" in shown
    assert {line.split()[0] for line in shown.splitlines()[:-1]} == _values(rotated).keys()
