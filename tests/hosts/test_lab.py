"""The lab on real hosts: what its verbs do."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, LabError, Machine
from lab.system import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can boot hosts; run: sudo ./messwarte test")
ROOT = Path(__file__).resolve().parent.parent.parent
# In the checkout: a test run that was killed is cleaned up by the next one.
STATE = ROOT / ".lab"


@pytest.fixture(scope="module")
def pair() -> Iterator[dict[str, Machine]]:
    """One lab of two hosts, `first` and `second`."""
    one = Lab("test-pair", STATE)
    yield one.up(["first", "second"])
    one.down()


@pytest.fixture(scope="module")
def other() -> Iterator[Machine]:
    """The host of another lab."""
    one = Lab("test-other", STATE)
    yield one.up(["first"])["first"]
    one.down()


def test_hosts_are_debian_13_and_healthy(pair: dict[str, Machine]) -> None:
    """Every unit of a fresh host runs, and PID 1 is systemd."""
    for machine in pair.values():
        failed = "{ systemctl --failed --no-legend; journalctl --no-pager --priority warning --lines 40; exit 1; }"
        assert machine.succeed(f"systemctl is-system-running --wait || {failed}").strip() == "running"
        assert 'VERSION_ID="13"' in machine.succeed("cat /etc/os-release; hostname")
        assert machine.succeed("hostname").strip() == machine.name


def test_hosts_know_each_other_and_differ(pair: dict[str, Machine]) -> None:
    """Names resolve to the addresses of lab.json; machine-id and host key are each host's own."""
    first, second = pair["first"], pair["second"]
    assert first.succeed("getent hosts second").split()[0] == second.address
    second.succeed(f"bash -c '</dev/tcp/first/22' && getent ahostsv4 first | grep -q {first.address}")
    for identity in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"):
        assert first.succeed(f"cat {identity}") != second.succeed(f"cat {identity}")


def test_only_the_key_logs_in(pair: dict[str, Machine], tmp_path: Path) -> None:
    """Without the lab's key sshd refuses; key and notes are their owner's only."""
    login = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={pair['first'].known_hosts}"]
    login += ["-o", "IdentitiesOnly=yes", "-i", str(tmp_path / "none"), f"root@{pair['first'].address}", "true"]
    refused = subprocess.run(login, capture_output=True, text=True, check=False)
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr
    state = STATE / "test-pair"
    for path in (state / "lab.json", state / "id_ed25519"):
        assert path.stat().st_mode & 0o077 == 0


def test_apt_installs_and_unit_verbs_wait(pair: dict[str, Machine]) -> None:
    """apt reaches Debian's archive from inside; the installed daemon is waited for by unit and by port."""
    machine = pair["first"]
    machine.succeed("apt-get update -qq -o APT::Update::Error-Mode=any")
    machine.succeed("DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server")
    machine.wait_for_unit("redis-server")
    machine.wait_for_open_port(6379)
    assert machine.systemctl("is-enabled redis-server") == (0, "enabled\n")
    assert "PONG" in machine.succeed("redis-cli ping")
    machine.succeed("systemctl stop redis-server")
    machine.wait_until_fails("redis-cli ping")
    with pytest.raises(LabError, match=r"not within 1 s.*(?s:.*)Active: inactive"):
        machine.wait_for_unit("redis-server", timeout=1)


def test_failed_unit_fails_the_wait_at_once_with_its_journal(pair: dict[str, Machine]) -> None:
    """Status and journal are in the error, long before the wait's time is over."""
    machine = pair["first"]
    machine.execute("systemd-run --unit=broken --service-type=exec sh -c 'echo the disk is on fire; exit 3'")
    begun = time.monotonic()
    with pytest.raises(LabError, match=r"(?s)broken failed:.*code=exited, status=3.*the disk is on fire"):
        machine.wait_for_unit("broken", timeout=60)
    assert time.monotonic() - begun < 20


def test_succeed_and_fail_tell_status_and_output(pair: dict[str, Machine]) -> None:
    """Exit statuses arrive, 255 as 254 because ssh's own is 255; an expected failure is none, and the reverse."""
    machine = pair["first"]
    assert machine.execute("echo out; echo err >&2; exit 7") == (7, "out\nerr\n")
    assert machine.execute("exit 255")[0] == 254
    assert machine.succeed("echo a", "cat <<END\nb\nEND") == "a\nb\n"
    assert machine.fail("echo sorry; false") == "sorry\n"
    with pytest.raises(LabError, match=r"`ls /none` ended with 2:\nls: cannot access"):
        machine.succeed("ls /none")
    with pytest.raises(LabError, match="should not have"):
        machine.fail("true")
    with pytest.raises(LabError, match="did not end within 1 s"):
        machine.succeed("sleep 30", timeout=1)


def test_files_go_both_ways(pair: dict[str, Machine], tmp_path: Path) -> None:
    """A folder copied there and back is the same."""
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "blob").write_bytes(bytes(range(256)))
    pair["first"].copy_to_host(folder, "/root/there")
    pair["first"].wait_for_file("/root/there/blob")
    pair["first"].copy_from_host("/root/there", tmp_path / "back")
    assert (tmp_path / "back/blob").read_bytes() == bytes(range(256))


def test_blocked_host_is_cut_off_and_keeps_its_link(pair: dict[str, Machine]) -> None:
    """Nothing gets through while blocked; the host sees silence and no loss of its link, as in an outage elsewhere."""
    first, second = pair["first"], pair["second"]
    first.block()
    second.fail(f"timeout 2 bash -c '</dev/tcp/{first.address}/22'")
    with pytest.raises(LabError, match="cannot be reached"):
        first.fail("true", timeout=20)
    first.unblock()
    second.wait_until_succeeds(f"bash -c '</dev/tcp/{first.address}/22'")
    network = first.journal("systemd-networkd", lines=1000)
    assert "host0: Gained carrier" in network
    assert "host0: Lost carrier" not in network


def test_reboot_and_crash_keep_the_disk(pair: dict[str, Machine]) -> None:
    """Both end every process and keep what was written; after them another boot runs."""
    machine = pair["second"]
    boots = [machine.succeed("echo kept > /root/file; sync; cat /proc/sys/kernel/random/boot_id")]
    machine.reboot()
    boots.append(machine.succeed("cat /proc/sys/kernel/random/boot_id"))
    machine.crash()
    assert not Lab("test-pair", STATE).is_up()
    with pytest.raises(LabError, match="cannot be reached"):
        machine.succeed("true")
    machine.start()
    boots.append(machine.succeed("cat /proc/sys/kernel/random/boot_id"))
    assert len(set(boots)) == 3
    assert machine.succeed("cat /root/file") == "kept\n"


def test_up_again_keeps_what_runs_and_starts_what_does_not(pair: dict[str, Machine]) -> None:
    """A second `up` changes nothing; a host that was switched off is booted again with its disk."""
    one = Lab("test-pair", STATE)
    boot = pair["first"].succeed("cat /proc/sys/kernel/random/boot_id")
    pair["second"].succeed("echo kept > /root/off")
    pair["second"].execute("poweroff")
    wait_until(lambda: not one.is_up(), "second is off", 30)
    said: list[str] = []
    machines = one.up(["second", "first"], said.append)
    assert said[0] == "starting second again"
    assert machines["second"].succeed("cat /root/off") == "kept\n"
    assert machines["first"].succeed("cat /proc/sys/kernel/random/boot_id") == boot
    with pytest.raises(LabError, match=r"is up with other hosts \(first, second\); run: \./messwarte down"):
        one.up(["first"])


def test_two_labs_do_not_meet(pair: dict[str, Machine], other: Machine) -> None:
    """Same host name, other subnet; neither lab's hosts reach the other's, both reach their own and this machine."""
    assert other.address.rsplit(".", 1)[0] != pair["first"].address.rsplit(".", 1)[0]
    connect = "timeout 3 bash -c '</dev/tcp/{}/22'"
    pair["second"].succeed(connect.format(pair["first"].address))
    other.succeed(connect.format(other.address))
    other.fail(connect.format(pair["first"].address))
    pair["first"].fail(connect.format(other.address))


def test_stopping_a_unit_leaves_the_other_hosts_unit_of_that_name_alone(
    pair: dict[str, Machine], other: Machine
) -> None:
    """Neither is its process ended, nor is there a wait for it: systemd acts on control groups by name."""
    hosts = (pair["first"], pair["second"], other)
    for machine in hosts:
        machine.succeed("systemd-run --quiet --unit=namesake --service-type=exec sh -c 'sleep 1000 & wait'")
    assert pair["first"].succeed("systemctl stop namesake", timeout=20) == ""
    for machine in hosts[1:]:
        assert machine.succeed("systemctl is-active namesake; pgrep -c sleep").split() == ["active", "1"]


def test_another_checkouts_lab_is_not_touched(pair: dict[str, Machine], tmp_path: Path) -> None:
    """A lab of the same name from elsewhere is refused while its owner is there; `down` leaves it alone."""
    stranger = Lab("test-pair", tmp_path)
    assert not stranger.is_up()
    with pytest.raises(LabError, match=f"runs from {ROOT}"):
        stranger.up(["first"])
    assert stranger.foreign_owner() == ROOT
    stranger.down()
    pair["first"].succeed("true")
