"""Nothing of a lab outlives it, however it ended; and the tree that its hosts are copies of."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lab.base
import lab.trees
from lab import Lab
from lab.system import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can boot hosts; run: sudo ./messwarte test")
ROOT = Path(__file__).resolve().parent.parent.parent
# In the checkout: a test run that was killed is cleaned up by the next one.
STATE = ROOT / ".lab"
TREES = Path("/var/lib/messwarte/labs")


def traces(bridge: str) -> list[str]:
    """Return what the machine's own tools show of a lab: links, rules, mounts, processes, nspawn's."""
    commands = (
        "ip -br link",
        "nft list ruleset",
        "cat /proc/self/mounts",
        "ps -axww -o pid,args",
        "ls -d /run/systemd/nspawn/*/*",
        "find /sys/fs/cgroup -maxdepth 2 -type d",
    )
    shown = [
        subprocess.run(command, shell=True, capture_output=True, text=True, check=False).stdout  # noqa: S602
        for command in commands
    ]
    return [line for text in shown for line in text.splitlines() if bridge in line or f"_{bridge[2:]}" in line]


def bridge_of(name: str) -> str:
    """Return the lab's bridge, by the documented rule: mw and six digits of the name's SHA-256."""
    digest = subprocess.run(["sha256sum"], input=name, capture_output=True, text=True, check=True).stdout
    return f"mw{digest[:6]}"


def test_down_leaves_nothing_and_works_twice() -> None:
    """Before, after, and after again, the machine's tools show nothing of the lab."""
    name = "test-down"
    bridge = bridge_of(name)
    forward = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    alone = not TREES.exists()
    one = Lab(name, STATE)
    one.down()
    assert traces(bridge) == []
    one.up(["first"])
    assert len(traces(bridge)) >= 5
    one.down()
    assert traces(bridge) == []
    assert not (TREES / name).exists()
    assert not (STATE / name).exists()
    if alone:
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forward
        assert not TREES.exists()
    one.down()
    assert traces(bridge) == []


@pytest.mark.parametrize("repair", ["up", "down"])
@pytest.mark.parametrize("moment", ["reserved", "network", "copying", "booting"])
def test_killed_up_is_cleaned_by_the_next_command(moment: str, repair: str) -> None:
    """Whatever `up` had made when it got SIGKILL, the next `up` works, and the next `down` leaves nothing."""
    name = "test-killed"
    bridge = bridge_of(name)
    marks: dict[str, Callable[[], bool]] = {
        "reserved": (TREES / name).exists,
        "network": Path("/sys/class/net", bridge).exists,
        "copying": lambda: any((TREES / name).glob(".*/usr/bin")),
        "booting": Path("/sys/class/net", f"vb-{bridge}h0").exists,
    }
    one = Lab(name, STATE)
    one.down()
    script = f"from pathlib import Path; from lab import Lab; Lab({name!r}, Path({str(STATE)!r})).up(['first'])"
    running = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_until(lambda: marks[moment]() or running.poll() is not None, f"{moment} is reached", 300, 0.002)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not one.is_up()
    said: list[str] = []
    if repair == "up":
        one.up(["first"], said.append)["first"].succeed("apt-config dump > /dev/null")
        assert said[0] == f"cleaning up what an interrupted run left of lab {name}"
    one.down(said.append)
    assert traces(bridge) == []
    assert not (TREES / name).exists()


def test_lab_whose_checkout_is_gone_is_cleaned(tmp_path: Path) -> None:
    """Deleting the checkout leaves a running lab behind; a `down` of that name from anywhere ends it."""
    name = "test-orphan"
    Lab(name, tmp_path / "old").up(["first"])
    shutil.rmtree(tmp_path / "old")
    Lab(name, tmp_path / "new").down()
    assert traces(bridge_of(name)) == []
    assert not (TREES / name).exists()


@pytest.mark.long
def test_base_tree_is_made_refreshed_and_purged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once, also after a killed run; refreshed when a week old, kept when that fails; purge spares the rest."""
    cache = Path(f"/var/cache/messwarte-test-{os.getpid()}")
    monkeypatch.setattr(lab.trees, "CACHE", cache)
    said: list[str] = []

    def make() -> float:
        with lab.base.base(said.append) as tree:
            assert (tree / "usr/lib/systemd/systemd").exists()
            assert not list(tree.glob("etc/ssh/ssh_host_*"))
            return (tree.parent / "stamp").stat().st_mtime

    def age() -> None:
        week_ago = time.time() - 8 * 86400
        os.utime(next(cache.glob("base-trixie-*/stamp")), (week_ago, week_ago))

    try:
        (cache / "packages").mkdir(parents=True)
        partial = cache / "base-trixie-amd64.partial/tree/usr"
        partial.mkdir(parents=True)
        made = make()
        assert len(said) == 1
        assert make() == made
        age()
        assert make() >= made
        age()
        script = (
            f"import lab.base, lab.trees, pathlib; lab.trees.CACHE = pathlib.Path({str(cache)!r})\n"
            "with lab.base.base(print): pass"
        )
        offline = subprocess.run(
            ["unshare", "--net", sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert "the next attempt is due tomorrow" in offline.stdout, offline.stderr
        assert time.time() - next(cache.glob("base-trixie-*/stamp")).stat().st_mtime < 7 * 86400
        lab.trees.purge_trees()
        assert [path.name for path in cache.iterdir()] == ["packages"]
    finally:
        shutil.rmtree(cache)
