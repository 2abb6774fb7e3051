"""What is wrong in one file harms nothing that runs: it is refused, or put back, and the message says what it was."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from lab import Machine
from tests.hosts.conftest import ROOT, Stack

_UNITS = (
    "'messwarte-*.service' 'prometheus*.service' 'redis-*.service' 'grafana-*.service' 'postgresql@*' 'postfix.service'"
)


def _processes(machine: Machine) -> dict[str, str]:
    """Return the main process of every service."""
    shown = machine.succeed(f"systemctl show --property=Id,MainPID,ActiveState {_UNITS}")
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n")]
    return {block["Id"]: block["MainPID"] for block in blocks if block["ActiveState"] == "active"}


@pytest.mark.parametrize(
    ("broken", "words", "restarted"),
    [
        (
            "prometheus:rules/erp.yml:- name: broken\n  rules: [{alert: A, expr: 'sum('}]",
            r"prometheus: `promtool check config",
            (),
        ),
        ("prometheus:rules/erp.yml:", r"prometheus: `promtool check config[^\n]*` failed:\n(.*\n)*.*erp\.yml", ()),
        ("alertmanager:alertmanager.yml:receivers: nobody", "alertmanager: `amtool check-config", ()),
        ("gate:nginx.conf:no_such_directive;", r'gate: [\s\S]*unknown directive "no_such_directive"', ()),
        ("gate:tls/host.key:", r"gate: [\s\S]*host\.key", ()),
        ("pgstat_exporter:config.yml:no_such_setting: 1", r"pgstat_exporter: [\s\S]*no_such_setting", ()),
        ("postgresql:messwarte.conf:shared_buffers = 'much'", r'postgresql: [\s\S]*shared_buffers.*"much"', ()),
        # Read by the server only: it is told before it reloads, and the file before is put back.
        (
            "postgresql:pg_hba.conf:host all all nowhere/99 trust",
            r"postgresql: [\s\S]*put back and runs",
            (),
        ),
        # What checks well but cannot get its memory.
        (
            "postgresql:messwarte.conf:shared_buffers = '4TB'",
            r"postgresql: [\s\S]*could not map anonymous shared memory[\s\S]*put back and runs",
            ("postgresql@17-main.service", "messwarte-erp.service", "messwarte-erp-load.service"),
        ),
        ("erp:password:", r"erp: \S+ names password, which is missing", ()),
        ("redis:users.acl:user broken on +nothing", r"redis: [\s\S]*put back and runs", ("redis-server.service",)),
    ],
    ids=lambda value: value.partition("\n")[0][:40] if isinstance(value, str) else "",
)
def test_one_broken_file_harms_nothing(stack: Stack, broken: str, words: str, restarted: tuple[str, ...]) -> None:
    """Only what cannot be checked before it runs is restarted, and by then runs as before; the next deploy agrees."""
    machine = stack.machine
    before = _processes(machine)
    command = [str(ROOT / ".venv/bin/pyinfra"), "-y", "--data", f"broken={broken}", "inventories/lab.py"]
    run = subprocess.run(
        [*command, "tests/hosts/breaking_stack.py"],
        cwd=ROOT,
        env=os.environ | {"MESSWARTE_LAB": stack.lab},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    said = re.sub(r"(?m)^ *\[erp\] ?", "", run.stdout + run.stderr)
    assert run.returncode != 0, said
    assert re.search(words, said), said
    assert "Traceback" not in said
    after = _processes(machine)
    assert after.keys() == before.keys()
    assert {unit for unit in after if after[unit] != before[unit]} <= set(restarted)
    again = stack.deploy()
    assert (again.status, again.changed, again.failed) == (0, {}, {}), again.said


@pytest.mark.parametrize(
    ("limit", "fill"),
    [
        ("size=64k", "dd if=/dev/zero of={home}/filling bs=1k"),
        ("nr_inodes=200", "for number in $(seq 300); do touch {home}/filling.$number || exit; done"),
    ],
)
def test_disk_that_fills_on_the_way_harms_nothing(stack: Stack, tmp_path: Path, limit: str, fill: str) -> None:
    """What a component's files are written to has no bytes or inodes left: the place is named, all goes on."""
    machine, home = stack.machine, "/etc/messwarte/redis"
    machine.succeed(
        f"cp -a {home} /root/redis; mount -t tmpfs -o {limit},mode=755 small {home}; cp -a /root/redis/. {home}",
        f"! ({fill.format(home=home)})",
    )
    before = _processes(machine)
    run = stack.deploy(stack.settings(tmp_path, redis={"memory": "99MB"}))
    assert run.status != 0
    assert re.search(rf"redis: \[Errno 28\] No space left on device(: '.*')? below {home}\n", run.said), run.said
    assert _processes(machine) == before
    machine.succeed(f"umount {home}; rm -r /root/redis")
    again = stack.deploy()
    assert (again.status, again.changed, again.failed) == (0, {}, {}), again.said
