"""What a deploy finds in its way: all of it is said, and nothing is touched."""

import os
import subprocess

from tests.hosts.conftest import LAB_SETTINGS, ROOT, Stack, started


def test_a_taken_port_and_a_full_disk_are_said_at_once_and_nothing_is_touched(stack: Stack) -> None:
    """The program, its unit and the folder are named; with them out of the way, a deploy mends what was stopped."""
    machine = stack.machine
    machine.succeed("systemctl stop prometheus-redis-exporter; mount -t tmpfs -o size=20m tmpfs /var/cache/apt")
    machine.succeed("systemd-run --quiet --unit=squatter python3 -m http.server 9121 --bind 127.0.0.1")
    machine.wait_until_succeeds("curl -fsS http://127.0.0.1:9121/")
    before = started(machine)
    run = stack.deploy()
    machine.succeed("umount /var/cache/apt; systemctl stop squatter")
    assert run.status != 0
    assert "erp: port 9121, which redis_exporter needs, is taken by python3 (squatter.service)" in run.said
    assert "erp: /var/cache/apt has 20 MB free; a deploy may need 30 MB there" in run.said
    assert "Starting operation" not in run.said
    assert started(machine) == before
    mended = stack.deploy()
    assert (mended.status, set(mended.changed)) == (0, {"redis_exporter"}), mended.said


def test_deploy_that_waits_for_another_says_so(stack: Stack) -> None:
    """And goes on when the other has ended."""
    machine = stack.machine
    machine.succeed("chmod 600 /etc/messwarte/redis/current/redis.conf")
    machine.succeed("systemd-run --quiet --unit=other-deploy flock /run/lock/messwarte.lock sleep 15")
    run = stack.deploy()
    assert (run.status, set(run.changed)) == (0, {"redis"}), run.said
    assert "another deploy is at work on erp; this one waits for it" in run.said
    assert machine.execute("systemctl is-active other-deploy")[0] != 0


def test_check_beside_another_deploy_does_not_call_its_work_drift(stack: Stack) -> None:
    """It says who is at work, and that it does not know."""
    stack.machine.succeed("systemd-run --quiet --unit=other-deploy flock /run/lock/messwarte.lock sleep 600")
    environment = os.environ | {"MESSWARTE_LAB": stack.lab, "MESSWARTE_SETTINGS": str(LAB_SETTINGS)}
    command = [str(ROOT / "messwarte"), "deploy", "--check"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    stack.machine.succeed("systemctl stop other-deploy")
    assert (found.returncode, found.stdout) == (2, "")
    assert "another deploy is at work on erp; check again when it has ended" in found.stderr
