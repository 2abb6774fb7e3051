"""What `deploy` says of changes by hand, and its ways back: to the configuration before, and to a host without us."""

import json
import os
import subprocess
from pathlib import Path

from tests.hosts.conftest import LAB_SETTINGS, ROOT, Stack

_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"


def _verb(stack: Stack, *arguments: str, settings: Path = LAB_SETTINGS) -> subprocess.CompletedProcess[str]:
    """Run `./messwarte deploy` on the stack's lab."""
    environment = os.environ | {"MESSWARTE_LAB": stack.lab, "MESSWARTE_SETTINGS": str(settings)}
    command = [str(ROOT / "messwarte"), "deploy", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_check_names_what_was_changed_by_hand_and_nothing_else(mended: Stack) -> None:
    """A file's mode, its content, a link, a unit and a role, each under its component; looking changes nothing."""
    assert (_verb(mended, "--check").returncode, _verb(mended, "--check").stdout) == (0, "no drift\n")
    prometheus, redis = (
        mended.machine.succeed(f"readlink /etc/messwarte/{name}/current").strip() for name in ("prometheus", "redis")
    )
    link = "/etc/systemd/system/prometheus-alertmanager.service.d/messwarte.conf"
    mended.machine.succeed(
        f"chmod 600 {prometheus}/prometheus.yml; echo >> {redis}/users.acl; ln -sf /dev/null {link}",
        f"systemctl stop prometheus-node-exporter; {_PSQL} -c 'ALTER ROLE erp_app CREATEDB'",
    )
    for _ in range(2):
        found = _verb(mended, "--check", "--json")
        assert found.returncode == 1
        differences = {one["component"]: one["differences"] for one in json.loads(found.stdout)}
        role = differences.pop("database")
        assert [one.rpartition(" PASSWORD ")[0] for one in role] == [
            "roles and database: now role erp_app CREATEDB",
            "roles and database: no longer role erp_app",
        ]
        assert differences == {
            "prometheus": [f"{prometheus}/prometheus.yml (mode 600 instead of 644)"],
            "redis": [f"{redis}/users.acl (content)"],
            "alertmanager": [f"{link} leads elsewhere"],
            "node_exporter": ["prometheus-node-exporter.service is inactive/enabled"],
        }
    assert _verb(mended).returncode == 0
    assert _verb(mended, "--check").stdout == "no drift\n"


def test_check_sees_what_strangers_added(mended: Stack) -> None:
    """A drop-in that is not ours, a file beside ours, and a folder that is open to all."""
    machine = mended.machine
    drop_in = "/etc/systemd/system/prometheus-node-exporter.service.d/zz.conf"
    redis, rules = machine.succeed(
        "readlink /etc/messwarte/redis/current; echo $(readlink /etc/messwarte/prometheus/current)/rules"
    ).split()
    machine.succeed(
        f"printf '[Service]\nProtectSystem=false\n' > {drop_in}; systemctl daemon-reload",
        f"chmod 777 {redis}; touch {rules}/zz.yml",
    )
    found = json.loads(_verb(mended, "--check", "--json").stdout)
    differences = {one["component"]: one["differences"] for one in found}
    assert differences.keys() == {"node_exporter", "redis", "prometheus"}
    assert drop_in in differences["node_exporter"][0]
    assert differences["redis"] == [f"{redis} (mode 777 instead of 755)"]
    assert differences["prometheus"] == [f"{rules}/zz.yml is not ours"]
    assert _verb(mended).returncode == 0
    machine.fail(f"ls {rules}/zz.yml", f"ls {drop_in}")
    machine.succeed(f"rm {drop_in}.by-hand")
    assert _verb(mended, "--check").stdout == "no drift\n"


def test_check_does_not_call_silence_good(mended: Stack) -> None:
    """A host that does not answer is not without drift: 2, and its name."""
    mended.machine.block()
    try:
        found = _verb(mended, "--check")
    finally:
        mended.machine.unblock()
    assert found.returncode == 2
    assert found.stdout == ""


def test_rollback_returns_to_what_ran_before_and_no_further_than_is_kept(mended: Stack, tmp_path: Path) -> None:
    """Three settings one after the other: back, back again, then there is nothing older; a deploy goes forward."""
    machine = mended.machine

    def memory() -> int:
        ask = "redis-cli --user messwarte_monitor --no-auth-warning info memory"
        login = 'REDISCLI_AUTH="$(cat /etc/messwarte/redis/current/monitor_password)"'
        shown = machine.succeed(f"{login} {ask} | grep ^maxmemory:")
        return int(shown.split(":")[1]) // 2**20

    sizes = [140, 141, 142, 143]
    for size in sizes:
        assert _verb(mended, settings=mended.settings(tmp_path, redis={"memory": f"{size}MB"})).returncode == 0
    assert len(machine.succeed("ls -d /etc/messwarte/redis/*/").split()) == 3 + 1, "three generations and `current`"
    for before in (142, 141):
        back = _verb(mended, "--rollback", "redis")
        assert back.returncode == 0, back.stdout + back.stderr
        assert memory() == before
    none = _verb(mended, "--rollback", "redis")
    assert none.returncode != 0
    assert "redis: there is no earlier configuration to return to" in none.stdout + none.stderr
    assert memory() == 141
    assert "redis differs: redis.conf changes" in _verb(mended, "--check").stdout
    refused = _verb(mended, "--rollback", "database")
    assert refused.returncode != 0
    assert "no service whose configuration could be put back" in refused.stdout + refused.stderr
    assert _verb(mended).returncode == 0
    assert memory() == 128


def test_remove_leaves_data_and_packages_and_nothing_else_of_ours(mended: Stack) -> None:
    """It asks first; then no unit, no file and no port of the stack is left, and a deploy finds all data again."""
    machine = mended.machine
    count = f"{_PSQL} -d erp -c 'SELECT count(*) FROM charge'"  # noqa: S608
    charges = machine.succeed(count)
    unsure = _verb(mended, "--remove")
    assert unsure.returncode != 0
    machine.succeed("systemctl is-active prometheus")
    removed = _verb(mended, "--remove", "--yes")
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert machine.succeed("ls -A /etc/messwarte /opt/messwarte; find /etc/systemd /usr/local -name '*messwarte*'") == (
        "/etc/messwarte:\n\n/opt/messwarte:\n"
    )
    assert machine.succeed("ss -Hltn '! sport = :22'") == ""
    machine.succeed("dpkg -s postgresql-17 prometheus")
    assert _verb(mended).returncode == 0
    assert machine.succeed(count) == charges
