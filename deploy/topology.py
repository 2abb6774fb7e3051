"""Which host runs what, and how each reaches the others: the inventory, read once."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from settings import Settings, SettingsError

GROUPS = ("database", "cache", "monitoring", "worker", "app")


@dataclass(frozen=True)
class Node:
    """A host of the inventory; `address` is how the other hosts reach it."""

    name: str
    address: str
    groups: frozenset[str]


@dataclass(frozen=True)
class Endpoint:
    """An address of a service, and the host it runs on (None: outside of the inventory)."""

    address: str
    port: int
    host: str | None

    def __str__(self) -> str:
        """Return `address:port`, with an IPv6 address in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Topology:
    """The hosts of one inventory and the way from each component to each other."""

    def __init__(self, nodes: Iterable[Node], settings: Settings) -> None:
        """Take the hosts; raises SettingsError when they cannot work together."""
        self.nodes = sorted(nodes, key=lambda node: node.name)
        self.settings = settings
        self.private_network = settings.network.plaintext_private_network
        for group in ("database", "cache", "monitoring"):
            if len(self.members(group)) > 1:
                raise SettingsError(f"group `{group}` has more than one host; this version deploys one of each")
        if len(self.nodes) > 1 and not self.private_network:
            raise SettingsError(
                "the inventory has several hosts, whose services would have to reach each other without TLS; "
                "if nobody else can read their network, set `network: {plaintext_private_network: true}`"
            )

        for node in self.nodes if self.private_network else ():
            if not _is_ipv4(node.address):
                raise SettingsError(
                    f"host {node.name}: services would listen on `{node.address}`; give the host's IPv4 address in the "
                    "private network as its data `address` in the inventory"
                )

    @classmethod
    def of(cls, inventory: Any, settings: Settings) -> "Topology":
        """Read pyinfra's inventory; an address is `host.data.address`, or else the SSH host name."""
        nodes = []
        for host in inventory:
            address = host.data.get("address") or host.data.get("ssh_hostname") or host.name
            nodes.append(Node(host.name, address, frozenset(host.groups) & set(GROUPS)))
        return cls(nodes, settings)

    def members(self, group: str) -> list[Node]:
        """Return the hosts of a group."""
        return [node for node in self.nodes if group in node.groups]

    def listen(self, node: Node) -> str:
        """Return the address on which a host's services listen, and at which everyone reaches them."""
        return node.address if self.private_network else "127.0.0.1"

    def endpoint(self, node: Node, port: int) -> Endpoint:
        """Return a service of a host."""
        return Endpoint(self.listen(node), port, node.name)

    def single(self, group: str, port: int) -> Endpoint | None:
        """Return the service of the one host of a group, or None when the group is empty."""
        nodes = self.members(group)
        return self.endpoint(nodes[0], port) if nodes else None

    def database(self) -> Endpoint | None:
        """Return where PostgreSQL is, deployed or existing."""
        part = self.settings.postgresql
        return _existing(part.existing.address) if part.existing else self._deployed(part.mode, "database", 5432)

    def redis(self) -> Endpoint | None:
        """Return where Redis is, deployed or existing."""
        part = self.settings.redis
        return _existing(part.existing.address) if part.existing else self._deployed(part.mode, "cache", 6379)

    def _deployed(self, mode: str, group: str, port: int) -> Endpoint | None:
        return self.single(group, port) if mode == "deployed" else None


def _existing(address: str) -> Endpoint:
    name, _, port = address.rpartition(":")
    return Endpoint(name.strip("[]"), int(port), None)


def _is_ipv4(address: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(address))
    except ValueError:
        return False
