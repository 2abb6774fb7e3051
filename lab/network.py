"""A lab's own network: a bridge, a subnet, and one nftables table, all named after the lab."""

import hashlib
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from lab.system import LabError, run

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARD_BEFORE = Path("/var/lib/messwarte/labs/ip_forward.before")


@dataclass(frozen=True)
class Network:
    """A lab's network; everything in it follows from the lab's name and its subnet."""

    lab: str
    subnet: ipaddress.IPv4Network

    @property
    def tag(self) -> str:
        """Six characters that stand for the lab where names are short."""
        return tag(self.lab)

    @property
    def bridge(self) -> str:
        """The bridge's interface name."""
        return f"mw{self.tag}"

    @property
    def table(self) -> str:
        """The name of the lab's nftables table."""
        return f"messwarte_{self.tag}"

    @property
    def gateway(self) -> str:
        """This machine's address in the lab."""
        return str(self.subnet[1])

    def address(self, number: int) -> str:
        """Return the address of the lab's nth host, from 0."""
        return str(self.subnet[10 + number])

    def up(self) -> None:
        """Make bridge, forwarding and masquerading."""
        run(["ip", "link", "add", self.bridge, "type", "bridge"])
        run(["ip", "addr", "add", f"{self.gateway}/{self.subnet.prefixlen}", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])
        _allow_forwarding()
        family, where = ["nft", "add"], ["ip", self.table]
        run([*family, "table", *where])
        run([*family, "chain", *where, "postrouting", "{ type nat hook postrouting priority 100 ; }"])
        rule = ["ip", "saddr", str(self.subnet), "oifname", "!=", self.bridge, "masquerade"]
        run([*family, "rule", *where, "postrouting", *rule])

    def down(self) -> None:
        """Take away whatever there is of it."""
        if run(["ip", "link", "show", self.bridge], check=False).returncode == 0:
            run(["ip", "link", "delete", self.bridge])
        if run(["nft", "list", "table", "ip", self.table], check=False).returncode == 0:
            run(["nft", "delete", "table", "ip", self.table])


def tag(lab: str) -> str:
    """Return six hexadecimal characters for a lab's name."""
    return hashlib.sha256(lab.encode()).hexdigest()[:6]


def choose(lab: str) -> Network:
    """Return a network whose /24 (of 10.64.0.0/10, by the lab's name) no route of this machine uses."""
    used = [_network(route["dst"]) for route in json.loads(run(["ip", "-j", "-4", "route"]).stdout)]
    start = int(tag(lab), 16)
    for step in range(1000):
        number = (start + step) % (64 * 256)
        candidate = ipaddress.IPv4Network(f"10.{64 + number // 256}.{number % 256}.0/24")
        if not any(network and candidate.overlaps(network) for network in used):
            return Network(lab, candidate)
    raise LabError("this machine's routes leave no free /24 of 10.64.0.0/10 for a lab")


def restore_forwarding() -> None:
    """Put back ip_forward as it was before the first lab; called when the last one is gone."""
    if _FORWARD_BEFORE.exists():
        _FORWARD.write_text(_FORWARD_BEFORE.read_text())
        _FORWARD_BEFORE.unlink()


def _allow_forwarding() -> None:
    if not _FORWARD_BEFORE.exists():
        _FORWARD_BEFORE.parent.mkdir(parents=True, exist_ok=True)
        _FORWARD_BEFORE.write_text(_FORWARD.read_text())
    _FORWARD.write_text("1\n")


def _network(destination: str) -> ipaddress.IPv4Network | None:
    return None if destination == "default" else ipaddress.IPv4Network(destination, strict=False)
