"""What is said of a host before a deploy changes anything there."""

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import pytest

from deploy import preflight
from deploy.component import Component, Unit
from deploy.plan import HostFacts, Plan
from deploy.topology import Topology, node
from settings import Secrets, Settings

GOOD = HostFacts(
    memory=4 * 2**30,
    python="3.13",
    machine="x86_64",
    debian="debian 13",
    root=True,
    clock=0,
    free=dict.fromkeys(("/etc", "/opt", "/var/lib", "/var/cache/apt"), (50 * 2**30, 10**6)),
    listeners=(),
    applied=[],
    grafana_there=False,
    grafana_reachable=True,
)
_HOSTS = (("a", "10.0.0.1", ["database", "cache"]), ("b", "10.0.0.2", ["monitoring", "worker", "app"]))


def _findings(**changes: Any) -> list[str]:
    # Seconds by which the host's clock is ahead; counted from now, not from when the tests were collected.
    changes["clock"] = time.time() + changes.get("clock", 0)
    return preflight.host_findings(dataclasses.replace(GOOD, **changes))


def test_a_good_host_passes() -> None:
    assert _findings() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"debian": "debian 12"}, "it runs debian 12; Messwarte deploys to Debian 13"),
        ({"debian": ""}, "it runs an unknown system"),
        ({"root": False}, "commands do not run as root"),
        ({"memory": 300 * 2**20}, "it has 300 MB of memory; 512 MB is the least"),
        (
            {"free": GOOD.free | {"/var/lib": (99 * 2**20, None)}},
            "/var/lib has 99 MB free; a deploy may need 1024 MB there",
        ),
        (
            {"applied": ["redis"], "free": GOOD.free | {"/opt": (2**20, 10**6), "/etc": (3 * 2**20, 1000)}},
            "/opt has 1 MB free; a deploy may need 102 MB there",
        ),
        (
            {"free": GOOD.free | {"/opt": (2**40, 24_999)}},
            r"/opt has 24999 inodes free \(df -i\); a deploy may need 25000 there",
        ),
        ({"clock": 3600}, r"its clock is (3600|3599) s ahead of this machine's"),
        ({"clock": -90}, r"its clock is (90|91) s behind this machine's"),
    ],
)
def test_what_is_wrong_with_a_host_is_said(changes: dict[str, object], words: str) -> None:
    (finding,) = _findings(**changes)
    assert re.search(words, finding)


def test_everything_is_said_at_once() -> None:
    assert len(_findings(debian="", root=False, memory=1, free=dict.fromkeys(GOOD.free, (0, 0)), clock=-3600)) == 12


def test_memory_that_a_host_does_not_have_is_said(tmp_path: Path) -> None:
    wanted = {"postgresql": {"memory": "4000GB"}, "redis": {"memory": "5GB"}}
    settings = Settings.model_validate(wanted)
    both, other = (node(name, {"address": address}, groups) for name, address, groups in _HOSTS)
    for one, findings in (
        (
            both,
            ["postgresql.memory is 4000GB, and the host has 4096 MB", "redis.memory is 5GB, and the host has 4096 MB"],
        ),
        (other, []),
    ):
        plan = Plan(settings, Secrets(tmp_path / "secrets.yml"), Topology([both, other], settings), one, GOOD)
        assert preflight.memory_findings(plan) == findings


def test_a_port_that_another_program_has_is_named_with_its_owner() -> None:
    web = Component("web", units=(Unit("web.service"),), ports=(80, 443))
    taken = (
        ("*", 80, "nginx", "nginx.service"),
        ("127.0.0.1", 443, "web", "web.service"),
        ("10.0.0.1", 443, "other", "other.service"),
        ("*", 22, "sshd", ""),
    )
    facts = dataclasses.replace(GOOD, listeners=taken)
    assert preflight.port_findings(facts, [web]) == ["port 80, which web needs, is taken by nginx (nginx.service)"]
