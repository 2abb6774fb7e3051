"""A lab: hosts by name on a network of their own; `up` makes it, `down` leaves nothing of it."""

import contextlib
import fcntl
import ipaddress
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import guest, network
from lab.base import base
from lab.guest import ROOTS, Guest
from lab.machine import Machine
from lab.network import Network
from lab.system import LabError, Progress, require, run


class Lab:
    """A lab of one name; its state is in `STATE/NAME/`, its hosts' trees below /var/lib/messwarte/labs."""

    def __init__(self, name: str = "lab", state: Path = Path(".lab")) -> None:
        """Name a lab; nothing is started. The name becomes part of paths, so it is letters, digits and dashes."""
        if not name.replace("-", "").isalnum():
            raise LabError(f"a lab's name is letters, digits and dashes, not `{name}`")
        self.name = name
        self.state = (state / name).resolve()
        self._plan = self.state / "plan.json"
        self._ready = self.state / "lab.json"

    def is_up(self) -> bool:
        """Say whether the lab is up whole: `up` has finished, and every host still runs."""
        return self._ready.exists() and all(guest.processes(one) for one in self._guests())

    def up(self, hosts: Sequence[str] = ("erp",), on_progress: Progress = print) -> dict[str, Machine]:
        """Boot the hosts and wait until one can log in to each; a running lab of the same hosts is kept."""
        require(on_progress)
        with self._locked():
            if self.is_up() and set(self.machines()) == set(hosts):
                return self.machines()
            if self._plan.exists():
                on_progress(f"cleaning up what was left of lab {self.name}")
                self._clean()
            tree = base(on_progress)
            chosen = network.choose(self.name)
            self._write(self._plan, {"subnet": str(chosen.subnet), "hosts": list(hosts)})
            chosen.up()
            on_progress(f"booting {', '.join(hosts)} on {chosen.subnet}")
            self._boot(tree)
        return self.machines()

    def down(self) -> None:
        """End the hosts and take away trees, bridge, rules and state; an absent lab is fine."""
        if not self.state.exists():
            return
        with self._locked():
            self._clean()
        shutil.rmtree(self.state)

    def machines(self) -> dict[str, Machine]:
        """Return the hosts of a lab that is up."""
        if not self._ready.exists():
            raise LabError(f"lab {self.name} is not up; run: ./messwarte up")
        return {one.name: self._machine(one) for one in self._guests()}

    def _boot(self, tree: Path) -> None:
        guests = self._guests()
        addresses = {one.name: one.address for one in guests}
        key = self.state / "id_ed25519"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {self.name}", "-f", str(key)])
        public_key = key.with_suffix(".pub").read_text()

        def start(one: Guest) -> str:
            host_key = guest.prepare(one, tree, public_key, addresses)
            guest.boot(one)
            return f"{one.address} {host_key}"

        with ThreadPoolExecutor() as pool:
            (self.state / "known_hosts").write_text("".join(pool.map(start, guests)))
            list(pool.map(lambda one: self._machine(one).wait_until_up(), guests))
        self._write(
            self._ready,
            {
                "name": self.name,
                "bridge": guests[0].network.bridge,
                "subnet": str(guests[0].network.subnet),
                "hosts": {name: {"address": address} for name, address in addresses.items()},
                "ssh_user": "root",
                "ssh_key": str(key),
                "known_hosts": str(self.state / "known_hosts"),
            },
        )

    def _clean(self) -> None:
        self._ready.unlink(missing_ok=True)
        guests = self._guests() if self._plan.exists() else []
        with ThreadPoolExecutor() as pool:
            list(pool.map(guest.remove, guests))
        if guests:
            guests[0].network.down()
        shutil.rmtree(ROOTS / self.name, ignore_errors=True)
        for leftover in self.state.iterdir():
            if leftover.name != "lock":
                leftover.unlink()
        if not any(path.is_dir() for path in ROOTS.glob("*")):
            network.restore_forwarding()
            with contextlib.suppress(OSError):
                ROOTS.rmdir()
                ROOTS.parent.rmdir()

    def _guests(self) -> list[Guest]:
        plan = json.loads(self._plan.read_text())
        net = Network(self.name, ipaddress.IPv4Network(plan["subnet"]))
        return [Guest(name, number, net, self.state / f"{name}.log") for number, name in enumerate(plan["hosts"])]

    def _machine(self, one: Guest) -> Machine:
        return Machine(one, self.state / "id_ed25519", self.state / "known_hosts")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LabError(f"another command is at work on lab {self.name}; wait for it") from error
            yield

    def _write(self, path: Path, content: object) -> None:
        path.touch(mode=0o600)
        path.write_text(json.dumps(content, indent=2) + "\n")
