"""A lab: hosts by name on a network of their own; `up` makes it, `down` leaves nothing of it."""

import contextlib
import ipaddress
import json
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lab import forwarding, guest, network
from lab.base import base
from lab.guest import ROOTS, Guest
from lab.machine import Machine
from lab.network import Network
from lab.surroundings import resolvers
from lab.system import LabError, Progress, delete_tree, locked, need_root, require, run, say, write_json

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", re.IGNORECASE)
_MOST_HOSTS = 200


@dataclass(frozen=True)
class Plan:
    """What a lab is meant to be: noted beside its trees before anything of it is made."""

    state: str
    subnet: str
    hosts: tuple[str, ...]


class Lab:
    """A lab of one name; its keys and notes are in `STATE/NAME/`, its hosts' trees below /var/lib/messwarte/labs."""

    def __init__(self, name: str = "lab", state: Path = Path(".lab")) -> None:
        """Name a lab; nothing is started."""
        _check_name("a lab", name)
        self.name = name
        self.state = (state / name).resolve()
        self._ready = self.state / "lab.json"

    def is_up(self) -> bool:
        """Say whether the lab is up whole: `up` has finished, and every host still runs."""
        need_root()
        return self._is_made() and all(guest.runs(one) for one in self._guests())

    def up(self, hosts: Sequence[str] = ("erp",), on_progress: Progress = say) -> dict[str, Machine]:
        """Boot the hosts in parallel and wait until one can log in to each; what already runs is kept."""
        check_hosts(hosts)
        require(on_progress)
        with self._locked():
            self._refuse_foreign()
            if self._is_made():
                self._start_again(hosts, on_progress)
                return self.machines()
            if self._is_anything_left():
                on_progress(f"cleaning up what an interrupted run left of lab {self.name}")
                self._clean()
            with base(on_progress) as tree:
                self._reserve(hosts)
                on_progress(f"booting {', '.join(hosts)} on {self._plan().subnet}")
                self._boot(tree, on_progress)
        return self.machines()

    def down(self, on_progress: Progress = say) -> bool:
        """End the hosts and take away trees, network and state; say whether there was anything of this checkout's."""
        need_root()
        if self.foreign_owner() or not (self.state.exists() or self._is_anything_left()):
            return False
        with self._locked():
            if self._is_anything_left():
                on_progress(f"taking down lab {self.name}")
            self._clean()
            delete_tree(self.state)
        return True

    def replace(self, host: str, on_progress: Progress = say) -> Machine:
        """Throw a host away, its disk and its keys included, and boot a new one of its name and address."""
        with self._locked():
            guests = {one.name: one for one in self._guests()}
            one = guests[host]
            guest.kill(one)
            delete_tree(one.root)
            with base(on_progress) as tree:
                public_key = (self.state / "id_ed25519.pub").read_text()
                host_key = guest.prepare(one, tree, public_key, {name: each.address for name, each in guests.items()})
            known = self.state / "known_hosts"
            others = [line for line in known.read_text().splitlines() if not line.startswith(f"{one.address} ")]
            known.write_text("".join(f"{line}\n" for line in [*others, f"{one.address} {host_key.strip()}"]))
            guest.boot(one)
            self._wait([one], on_progress)
        return self._machine(one)

    def machines(self) -> dict[str, Machine]:
        """Return the hosts of a lab that is up."""
        need_root()
        if not self._is_made():
            raise LabError(f"lab {self.name} is not up; run: ./messwarte up")
        return {one.name: self._machine(one) for one in self._guests()}

    def _reserve(self, hosts: Sequence[str]) -> None:
        """Note the plan and make the network, one lab at a time, so that no two labs choose the same subnet."""
        found = resolvers()
        with _everywhere():
            self._refuse_foreign()
            guest.make_room(self.name)
            chosen = network.choose(self.name, found.servers)
            plan = {"state": str(self.state), "subnet": str(chosen.subnet), "hosts": list(hosts)}
            write_json(self._note, plan)
            forwarding.allow(ROOTS / "ip_forward.before")
            chosen.up(found)

    def _boot(self, tree: Path, progress: Progress) -> None:
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
        self._wait(guests, progress)
        found = {
            "name": self.name,
            "bridge": guests[0].network.bridge,
            "subnet": str(guests[0].network.subnet),
            "hosts": {name: {"address": address} for name, address in addresses.items()},
            "ssh_user": "root",
            "ssh_key": str(key),
            "known_hosts": str(self.state / "known_hosts"),
        }
        write_json(self._ready, found)

    def _start_again(self, hosts: Sequence[str], progress: Progress) -> None:
        have = [one.name for one in self._guests()]
        if set(have) != set(hosts):
            raise LabError(f"lab {self.name} is up with other hosts ({', '.join(have)}); run: ./messwarte down")
        off = [one for one in self._guests() if not guest.runs(one)]
        if off:
            progress(f"starting {', '.join(one.name for one in off)} again")
        for one in off:
            guest.boot(one)
        self._wait(off, progress)

    def _wait(self, guests: Sequence[Guest], progress: Progress) -> None:
        begun = time.monotonic()

        def wait(one: Guest) -> None:
            self._machine(one).wait_until_up()
            progress(f"{one.name} is up at {one.address} ({time.monotonic() - begun:.1f} s)")

        with ThreadPoolExecutor() as pool:
            list(pool.map(wait, guests))

    def _clean(self) -> None:
        """Take away everything of this name, of which there may be any part."""
        self._ready.unlink(missing_ok=True)
        guest.remove(self.name)
        network.remove(self.name)
        for leftover in self.state.iterdir():
            if leftover.name != "lock":
                delete_tree(leftover)
        with _everywhere():
            if not any(path.is_dir() for path in ROOTS.iterdir()):
                forwarding.restore(ROOTS / "ip_forward.before")
                delete_tree(ROOTS)
                with contextlib.suppress(OSError):
                    ROOTS.parent.rmdir()

    @property
    def _trees(self) -> Path:
        return ROOTS / self.name

    @property
    def _note(self) -> Path:
        return self._trees / ".lab.json"

    def _plan(self) -> Plan:
        noted = json.loads(self._note.read_text())
        return Plan(noted["state"], noted["subnet"], tuple(noted["hosts"]))

    def _is_made(self) -> bool:
        """Say whether `up` once finished and this machine has not been rebooted since."""
        return self._ready.exists() and self._note.exists() and not self.foreign_owner() and network.exists(self.name)

    def _is_anything_left(self) -> bool:
        return self._trees.exists() or network.exists(self.name) or bool(guest.processes(self._trees))

    def foreign_owner(self) -> Path | None:
        """Return the other checkout that the lab of this name belongs to, if it is still there."""
        need_root()
        if not self._note.exists():
            return None
        owner = Path(self._plan().state)
        return owner.parent.parent if owner != self.state and owner.exists() else None

    def _refuse_foreign(self) -> None:
        if owner := self.foreign_owner():
            raise LabError(f"a lab named {self.name} runs from {owner}; take it down there, or choose another name")

    def _guests(self) -> list[Guest]:
        plan = self._plan()
        net = Network(self.name, ipaddress.IPv4Network(plan.subnet))
        return [Guest(name, number, net, self.state / f"{name}.log") for number, name in enumerate(plan.hosts)]

    def _machine(self, one: Guest) -> Machine:
        return Machine(one, self.state / "id_ed25519", self.state / "known_hosts")

    def _locked(self) -> AbstractContextManager[None]:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        return locked(self.state / "lock", busy=f"another command is at work on lab {self.name}; wait for it")


def check_hosts(hosts: Sequence[str]) -> None:
    """Raise LabError unless these can be the hosts of one lab."""
    if not 0 < len(hosts) <= _MOST_HOSTS or len(set(hosts)) != len(hosts):
        raise LabError(f"a lab has 1 to {_MOST_HOSTS} hosts of different names, not `{' '.join(hosts)}`")
    for host in hosts:
        _check_name("a host", host)
        if host == "localhost":
            raise LabError("a host cannot be named `localhost`")


@contextlib.contextmanager
def _everywhere() -> Iterator[None]:
    """Keep every other lab of this machine from coming or going meanwhile."""
    with locked(ROOTS / "lock"):
        # The trees hold set-uid programs that this machine's users have no business with.
        ROOTS.chmod(0o700)
        yield


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise LabError(f"{what}'s name is at most 32 letters, digits and inner dashes, not `{name}`")
