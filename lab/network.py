"""A lab's own network: a bridge, a subnet, and one nftables table, all named after the lab."""

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.surroundings import Resolvers
from lab.system import LabError, installed, run

_LINKS = Path("/sys/class/net")
_CHOICES = ipaddress.IPv4Network("10.64.0.0/10")
_RULES = """\
table ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ip saddr {subnet} oifname != "{bridge}" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter;
    oifname "{bridge}" iifname != "{bridge}" ct state != {{ established, related }} drop
    iifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
    oifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
  }}
}}
"""
# Where the only resolver listens on loopback, guests ask the gateway, and both ends of the question are rewritten.
_RESOLVER_RULES = """\
table ip {table} {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    iifname "{bridge}" ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 dnat to {resolver}
  }}
  chain input {{
    type nat hook input priority 100;
    iifname "{bridge}" ip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 snat to 127.0.0.1
  }}
}}
"""


@dataclass(frozen=True)
class Network:
    """A lab's network; everything in it follows from the lab's name and its subnet."""

    lab: str
    subnet: ipaddress.IPv4Network

    @property
    def bridge(self) -> str:
        """The bridge's interface name."""
        return bridge(self.lab)

    @property
    def gateway(self) -> str:
        """This machine's address in the lab."""
        return str(self.subnet[1])

    def address(self, number: int) -> str:
        """Return the address of the lab's nth host, from 0."""
        return str(self.subnet[10 + number])

    def up(self, resolvers: Resolvers) -> None:
        """Make bridge, masquerading, and protection from other networks: only answers get in."""
        run(["ip", "link", "add", self.bridge, "type", "bridge"])
        run(["ip", "addr", "add", f"{self.gateway}/{self.subnet.prefixlen}", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])
        names = {
            "table": table(self.lab),
            "bridge": self.bridge,
            "subnet": self.subnet,
            "gateway": self.gateway,
        }
        rules = _RULES
        if resolvers.loopback and not resolvers.servers:
            Path(f"/proc/sys/net/ipv4/conf/{self.bridge}/route_localnet").write_text("1\n")
            rules += _RESOLVER_RULES
        run(["nft", "-f", "-"], stdin=rules.format(**names, resolver=resolvers.loopback))
        for family, owner, chain in dropping_chains(_ruleset()):
            for side in ("iifname", "oifname"):
                rule = [side, self.bridge, "accept", "comment", f'"{table(self.lab)}"']
                run(["nft", "insert", "rule", family, owner, chain, *rule])


def exists(lab: str) -> bool:
    """Say whether a lab's bridge is there; none survives a reboot of this machine."""
    return (_LINKS / bridge(lab)).exists()


def remove(lab: str) -> None:
    """Take away whatever there is of a lab's network."""
    if exists(lab):
        run(["ip", "link", "delete", bridge(lab)])
    if not installed("nft"):
        return
    if run(["nft", "list", "table", "ip", table(lab)], check=False).returncode == 0:
        run(["nft", "delete", "table", "ip", table(lab)])
    for family, owner, chain, handle in rules_with(table(lab), _ruleset()):
        run(["nft", "delete", "rule", family, owner, chain, "handle", str(handle)])


def tag(lab: str) -> str:
    """Return six hexadecimal characters that stand for a lab where names are short."""
    return hashlib.sha256(lab.encode()).hexdigest()[:6]


def bridge(lab: str) -> str:
    """Return the name of a lab's bridge."""
    return f"mw{tag(lab)}"


def table(lab: str) -> str:
    """Return the name of a lab's nftables table."""
    return f"messwarte_{tag(lab)}"


def choose(lab: str, servers: Iterable[str]) -> Network:
    """Return a network whose /24, by the lab's name, holds no route of this machine and none of its resolvers."""
    routes = json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]).stdout)
    return Network(lab, free_subnet(lab, [*(route["dst"] for route in routes if "dst" in route), *servers]))


def free_subnet(lab: str, used: Iterable[str]) -> ipaddress.IPv4Network:
    """Return the first free /24 of 10.64.0.0/10, counted from the hash of a lab's name.

    A route broader than /16, such as a VPN's 10.0.0.0/8, is avoided only while there is something else.
    """
    taken = [ipaddress.IPv4Network(one, strict=False) for one in used if one not in {"default", "0.0.0.0/0"}]
    start = int(tag(lab), 16)
    for broadest in (0, 16):
        narrow = [one for one in taken if one.prefixlen >= broadest]
        for step in range(1000):
            offset = (start + step) % (_CHOICES.num_addresses // 256) * 256
            candidate = ipaddress.IPv4Network((int(_CHOICES.network_address) + offset, 24))
            if not any(candidate.overlaps(one) for one in narrow):
                return candidate
    raise LabError(f"this machine's routes leave no free /24 of {_CHOICES} for a lab")


def dropping_chains(ruleset: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Find other people's chains that drop what is forwarded by default (Docker's, ufw's): family, table, name."""
    for entry in ruleset:
        chain = entry.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in {"ip", "inet"}:
            yield chain["family"], chain["table"], chain["name"]


def rules_with(comment: str, ruleset: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, int]]:
    """Find rules by their comment: family, table, chain, handle."""
    for entry in ruleset:
        rule = entry.get("rule", {})
        if rule.get("comment") == comment:
            yield rule["family"], rule["table"], rule["chain"], rule["handle"]


def _ruleset() -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = json.loads(run(["nft", "-j", "-a", "list", "ruleset"]).stdout)["nftables"]
    return parsed
