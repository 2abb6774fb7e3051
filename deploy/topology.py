"""Which host runs what, and how each reaches the others: the inventory, read once."""

import functools
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from settings import Settings, SettingsError, load

GROUPS = ("database", "cache", "monitoring", "worker", "app", "backup")


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
        if missing := self._missing_groups():
            raise SettingsError("\n".join(missing))
        for group in ("database", "cache", "monitoring", "backup"):
            if len(self.members(group)) > 1:
                raise SettingsError(f"group `{group}` has more than one host; this version deploys one of each")
        if len(self.nodes) > 1 and not self.private_network:
            raise SettingsError(
                "the inventory has several hosts, whose services would have to reach each other without TLS; "
                "if nobody else can read their network, set `network: {plaintext_private_network: true}`"
            )
        if trouble := self._backup_trouble():
            raise SettingsError(trouble)

        for node in self.nodes if self.private_network else ():
            if not _is_ipv4(node.address):
                raise SettingsError(
                    f"host {node.name}: services would listen on `{node.address}`; give the host's IPv4 address in the "
                    "private network as its data `address` in the inventory"
                )

    def _missing_groups(self) -> list[str]:
        """Return what is to be deployed, and has no host: more often a misspelt group than a wish."""
        parts = {
            "database": ("postgresql",),
            "cache": ("redis",),
            "monitoring": ("prometheus", "alertmanager", "grafana"),
            "worker": ("tasks",),
            "app": ("erp",),
        }
        return [
            f"{part}.mode is `{mode}`, and the inventory has no host in group `{group}`; say `{part}: {{mode: off}}`, "
            f"or name its hosts there (groups are: {', '.join(GROUPS)})"
            for group, names in parts.items()
            for part in names
            if not self.members(group) and self._needs_a_host(part, mode := getattr(self.settings, part).mode)
        ]

    def _backup_trouble(self) -> str:
        """Return why there is not one place for the backups; empty where there is, or none is needed."""
        backup, hosts = self.settings.backup, self.members("backup")
        if backup.mode == "off":
            return ""
        place = next((name for name in ("folder", "sftp", "s3") if getattr(backup, name)), None)
        if not place and not hosts:
            return (
                "backup.mode is `deployed`, and there is no place for the backups; name a host in group `backup` of "
                "the inventory, or set `backup.folder`, `backup.sftp` or `backup.s3`"
            )
        if place and hosts:
            return f"backup: `{place}` and host {hosts[0].name} of group `backup` are two places; leave one of them out"
        if hosts and "database" in hosts[0].groups:
            return f"host {hosts[0].name} is in groups `database` and `backup`; a backup has to outlive that host"
        return ""

    @staticmethod
    def _needs_a_host(part: str, mode: str) -> bool:
        # An ERP that exists already is scraped on its hosts; other things that exist are outside of the inventory.
        return mode in {"deployed", "demo"} or (part == "erp" and mode == "existing")

    @classmethod
    def of(cls, inventory: Any, settings: Settings) -> "Topology":
        """Read pyinfra's inventory."""
        return cls([node(host.name, host.data, host.groups) for host in inventory], settings)

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

    def backup_store(self) -> Endpoint | None:
        """Return where the inventory's own host keeps backups: SSH, so at its own address in any case."""
        hosts = self.members("backup") if self.settings.backup.mode == "deployed" else []
        return Endpoint(hosts[0].address, 2222, hosts[0].name) if hosts else None

    def _deployed(self, mode: str, group: str, port: int) -> Endpoint | None:
        return self.single(group, port) if mode == "deployed" else None


def node(name: str, data: Any, groups: Iterable[str]) -> Node:
    """Return a host of an inventory; its address is its data `address`, or else the SSH host name."""
    address = data.get("address") or data.get("ssh_hostname") or name
    return Node(name, address, frozenset(groups) & set(GROUPS))


def settings_of(data: Any) -> tuple[Path, Settings]:
    """Return the settings file that a host's data name, read and checked. Raises SettingsError."""
    path = Path(data.get("settings") or "settings.yml").resolve()
    if data.get("settings") and not path.exists():
        raise SettingsError(f"{path}: the inventory names this settings file, and it is not there")
    return path, _load(path)


_load = functools.cache(load)


def _existing(address: str) -> Endpoint:
    name, _, port = address.rpartition(":")
    return Endpoint(name.strip("[]"), int(port), None)


def _is_ipv4(address: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(address))
    except ValueError:
        return False
