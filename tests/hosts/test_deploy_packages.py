"""A first deploy that is killed while Debian's packages are installed, on a host that is then rebooted."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab
from lab.system import wait_until
from tests.hosts.conftest import Stack, lab_of

_LISTENING = "ss -Hltun | awk '{print $5}'"
_GUARD = "/etc/systemd/system/redis-server.service.d/messwarte.conf"
# The deploy's program first, or it would see apt fail and go on.
_KILL = "pkill -9 -f 'python3 -I -$'; pkill -9 apt-get; pkill -9 dpkg"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab whose host has nothing yet."""
    with lab_of("test-bench-packages") as one:
        yield one


def test_no_daemon_starts_before_its_configuration_is_there(lab: Lab, tmp_path: Path) -> None:
    """Neither after the kill nor after a reboot does anything listen; the next run heals, here without Redis."""
    stack = Stack(lab.name, lab.up(["erp"]))
    before = stack.machine.succeed(_LISTENING)
    process = stack.start(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    installed = "dpkg-query --show --showformat '${db:Status-Status}' prometheus-node-exporter | grep -qx installed"
    wait_until(lambda: stack.machine.execute(installed)[0] == 0, "a package with a daemon is installed", 300, 0.2)
    stack.machine.succeed(f"{_KILL}; true")
    assert process.wait(300) != 0
    stack.machine.succeed("test ! -e /etc/messwarte/node_exporter")
    assert stack.machine.succeed(_LISTENING) == before
    stack.machine.reboot()
    stack.machine.succeed("systemctl is-enabled prometheus-node-exporter")
    assert stack.machine.succeed(_LISTENING) == before
    stack.machine.succeed(f"grep -l waits {_GUARD}")
    without_redis = stack.settings(tmp_path, redis={"mode": "off"})
    healed = stack.deploy(without_redis)
    assert (healed.status, healed.failed) == (0, {}), healed.said
    stack.machine.fail("dpkg --audit | grep .", "test -e /usr/sbin/policy-rc.d", "test -e /opt/messwarte/.ahead")
    stack.machine.fail(f"test -e {_GUARD}", "systemctl is-enabled redis-server", "systemctl is-active redis-server")
    again = stack.deploy(without_redis)
    assert (again.changed, again.failed) == ({}, {})
