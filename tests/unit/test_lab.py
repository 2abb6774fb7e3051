"""The lab's parts that need neither root nor hosts: names, subnets, parsing, locks, and what errors say."""

import fcntl
import ipaddress
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

import lab.system
from lab import Lab, LabError, forwarding, guest, network, surroundings
from lab.guest import Guest
from lab.network import Network
from lab.surroundings import Resolvers, guest_apt_settings, parse_resolvers


def test_subnet_follows_from_the_name() -> None:
    """The same name finds the same /24 again, and different names different ones."""
    names = [f"lab-{number}" for number in range(50)]
    subnets = [network.free_subnet(name, []) for name in names]
    assert subnets == [network.free_subnet(name, []) for name in names]
    assert len(set(subnets)) > 45
    assert all(one.prefixlen == 24 and one.subnet_of(ipaddress.IPv4Network("10.64.0.0/10")) for one in subnets)


def test_subnet_avoids_routes_and_resolvers() -> None:
    """A route or a resolver inside the first choice moves it to the next /24."""
    first = network.free_subnet("x", ["default", "0.0.0.0/0", "192.168.0.0/16"])
    following = ipaddress.IPv4Network((int(first.network_address) + 256, 24))
    assert network.free_subnet("x", [str(first)]) == following
    assert network.free_subnet("x", [f"{first.network_address + 53}"]) == following
    assert network.free_subnet("x", [str(first.supernet(4))]).overlaps(first.supernet(4)) is False


def test_subnet_below_a_vpn_that_takes_all_of_ten() -> None:
    """A route to 10.0.0.0/8 is shadowed by a /24, narrower ones are still avoided."""
    first = network.free_subnet("x", [])
    assert network.free_subnet("x", ["10.0.0.0/8"]) == first
    assert network.free_subnet("x", ["10.0.0.0/8", str(first)]) != first
    with pytest.raises(LabError, match="leave no free /24"):
        network.free_subnet("x", [f"10.{second}.0.0/16" for second in range(256)])


def test_interface_names_fit_and_belong_to_one_lab() -> None:
    """Interface names have at most 15 characters (IFNAMSIZ), for the 200th host as well."""
    seen = set()
    for name in ("a", "b", "a-rather-long-name-for-a-lab"):
        one = Guest("host", 199, Network(name, ipaddress.IPv4Network("10.64.0.0/24")), Path("log"))
        assert len(one.interface) <= 15
        assert len(one.network.bridge) <= 15
        assert one.address == "10.64.0.209"
        seen |= {one.interface, one.network.bridge}
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("text", "servers", "loopback", "guest_text"),
    [
        ("search a.test\nnameserver 192.0.2.1\n", ("192.0.2.1",), None, "search a.test\nnameserver 192.0.2.1\n"),
        ("nameserver 127.0.0.53\noptions edns0\n", (), "127.0.0.53", "nameserver 10.1.2.1\n"),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.9\n", ("192.0.2.9",), "127.0.0.1", "nameserver 192.0.2.9\n"),
        ("# nothing\nnameserver fe80::1%eth0\nnameserver\n", (), None, ""),
    ],
)  # fmt: skip
def test_resolvers(text: str, servers: tuple[str, ...], loopback: str | None, guest_text: str) -> None:
    """A guest asks the resolvers it can reach, and the gateway when there is only this machine's own."""
    found = parse_resolvers(text)
    assert (found.servers, found.loopback) == (servers, loopback)
    assert found.text("10.1.2.1") == guest_text


def test_first_resolv_conf_that_a_guest_can_use(tmp_path: Path) -> None:
    """A list of reachable servers goes before a loopback one, whatever their order; a missing file is skipped."""
    local, real = tmp_path / "local", tmp_path / "real"
    local.write_text("nameserver 127.0.0.1\n")
    real.write_text("nameserver 192.0.2.3\n")
    assert surroundings.resolvers([tmp_path / "none", local, real]).servers == ("192.0.2.3",)
    assert surroundings.resolvers([tmp_path / "none", local]) == Resolvers(loopback="127.0.0.1")
    assert surroundings.resolvers([tmp_path / "none"]) == Resolvers()


def test_apt_takes_over_proxies_and_nothing_else() -> None:
    """Of `apt-config dump` a guest gets proxies and checks; a proxy on loopback is reached at the gateway."""
    dump = """\
Acquire::http "";
Acquire::http::Proxy "http://127.0.0.1:3142/";
Acquire::https::Proxy "";
Acquire::https::CaInfo "/etc/ssl/own.pem";
Acquire::http::Proxy::internal.example "DIRECT";
Acquire::Check-Valid-Until "false";
Acquire::GzipIndexes "true";
Acquire::IndexTargets::deb::Packages::Optional "0";
"""
    environment = {"http_proxy": "http://unused.example:1", "https_proxy": "http://user:pw@localhost:8080"}
    assert guest_apt_settings(dump, environment, "10.1.2.1").splitlines() == [
        'Acquire::http::Proxy "http://10.1.2.1:3142/";',
        'Acquire::https::CaInfo "/etc/ssl/own.pem";',
        'Acquire::http::Proxy::internal.example "DIRECT";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::https::Proxy "http://user:pw@10.1.2.1:8080";',
    ]
    assert guest_apt_settings("", {}, "10.1.2.1") == ""


def test_other_peoples_dropping_chains() -> None:
    """On a machine with Docker the FORWARD chain would drop a lab's traffic; our own rules are known again."""
    printed = """{"nftables": [{"metainfo": {"version": "1.0.6"}},
      {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1,
                 "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
      {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "handle": 2,
                 "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
      {"chain": {"family": "inet", "table": "fw", "name": "fwd", "handle": 3,
                 "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}},
      {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 4}},
      {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 9, "comment": "messwarte_1"}},
      {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 8}}]}"""
    ruleset = json.loads(printed)["nftables"]
    assert list(network.dropping_chains(ruleset)) == [("ip", "filter", "FORWARD")]
    assert list(network.rules_with("messwarte_1", ruleset)) == [("ip", "filter", "FORWARD", 9)]


@pytest.mark.parametrize("before", ["0", "1"])
def test_forwarding_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """The first lab's note counts, not the second's; a note of an earlier boot is ignored."""
    switch, boot, note = tmp_path / "ip_forward", tmp_path / "boot_id", tmp_path / "note"
    monkeypatch.setattr(forwarding, "_FORWARD", switch)
    monkeypatch.setattr(forwarding, "_BOOT", boot)
    boot.write_text("boot-1\n")
    switch.write_text(f"{before}\n")
    forwarding.allow(note)
    forwarding.allow(note)
    assert switch.read_text() == "1\n"
    forwarding.restore(note)
    assert switch.read_text() == f"{before}\n"
    assert not note.exists()
    forwarding.restore(note)

    forwarding.allow(note)
    boot.write_text("boot-2\n")
    switch.write_text("0\n")
    forwarding.allow(note)
    forwarding.restore(note)
    assert switch.read_text() == "0\n"


@pytest.mark.parametrize("name", ["", "-", "a/b", "../x", "a b", "a_b", "a.b", "ü", "x" * 33, "a\n"])
def test_names_that_cannot_be(name: str) -> None:
    """Names become parts of paths, units and host names."""
    with pytest.raises(LabError, match=r"a lab's name is at most 32 letters, digits and inner dashes, not"):
        Lab(name)
    with pytest.raises(LabError, match=r"a host's name is"):
        Lab("fine").up([name])


@pytest.mark.parametrize("hosts", [[], ["a", "a"], [f"h{number}" for number in range(201)]])
def test_host_lists_that_cannot_be(hosts: list[str]) -> None:
    """A lab has hosts, each once, and no more than its /24 holds."""
    with pytest.raises(LabError, match="1 to 200 hosts of different names"):
        Lab("fine").up(hosts)


def test_not_root_is_told_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user every verb says what to run, and makes nothing."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    one = Lab("fine", tmp_path)
    for verb in (one.up, one.down, one.machines, one.is_up):
        with pytest.raises(LabError, match=r"run: sudo \./messwarte up$"):
            verb()
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_without_apt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without apt-get the error lists the packages."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)
    with pytest.raises(LabError, match=r"debootstrap .*nftables .*systemd-container"):
        lab.system.require(lambda _line: None)


def test_lock_of_a_killed_process_is_free_at_its_childs_exec(tmp_path: Path) -> None:
    """A process killed between fork and exec leaves its lock for a moment, which is not "another command at work"."""
    path = tmp_path / "lock"
    holding = path.open("a")
    fcntl.flock(holding, fcntl.LOCK_EX)
    exec_of_the_child = threading.Timer(0.3, holding.close)
    exec_of_the_child.start()
    with lab.system.locked(path, busy="someone"):
        assert holding.closed
    exec_of_the_child.join()


def test_busy_lock_and_lock_on_a_deleted_file(tmp_path: Path) -> None:
    """A held lock is told; a new lock file after a deleted one excludes others again."""
    path = tmp_path / "lock"
    with lab.system.locked(path):
        with pytest.raises(LabError, match="someone"), lab.system.locked(path, busy="someone"):
            pytest.fail("two holders")
        path.unlink()
        with lab.system.locked(path, busy="someone"):
            assert path.exists()
    with lab.system.locked(path, shared=True), lab.system.locked(path, shared=True, busy="someone"):
        pass


def test_errors_carry_what_the_program_said() -> None:
    """A failed program's output, a hanging one's time and a missing one's name are in the error."""
    with pytest.raises(LabError, match=r"(?s)ended with 3:\nto stdout\nto stderr"):
        lab.system.run(["sh", "-c", "echo to stdout; echo to stderr >&2; exit 3"])
    with pytest.raises(lab.system.LabTimeoutError, match="did not end within"):
        lab.system.run(["sleep", "60"], timeout=0.05)
    with pytest.raises(LabError, match="`no-such-program` is not installed"):
        lab.system.run(["no-such-program"])
    with pytest.raises(lab.system.LabTimeoutError, match=r"pigs fly: not within 0\.05 s"):
        lab.system.wait_until(lambda: False, "pigs fly", 0.05, 0.01)


def test_a_host_is_not_taken_for_its_longer_named_sister(tmp_path: Path) -> None:
    """Processes are found by the host's whole path: `erp` does not find those of `erp2`, the lab finds both."""
    sleepers = [
        subprocess.Popen(["sleep", "60"], env={"MESSWARTE_LAB_HOST": str(tmp_path / name)}) for name in ("erp", "erp2")
    ]
    try:
        first, second = (one.pid for one in sleepers)
        lab.system.wait_until(lambda: len(guest.processes(tmp_path)) == 2, "both are found", 5)
        assert guest.processes(tmp_path / "erp") == [first]
        assert guest.processes(tmp_path / "erp2") == [second]
        assert guest.processes(tmp_path / "er") == []
    finally:
        for one in sleepers:
            one.kill()
            one.wait()
