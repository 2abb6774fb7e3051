"""Which host runs what, and how each reaches the others: the inventory, read once."""

import functools
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from settings import Secrets, Settings, SettingsError, load

GROUPS = ("database", "cache", "monitoring", "worker", "app", "backup")
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Node:
    """A host of the inventory; `address` is how the other hosts reach it."""

    name: str
    address: str
    groups: frozenset[str]


@dataclass(frozen=True)
class Endpoint:
    """An address of a service, the host it runs on (None: outside of the inventory), and whether it speaks TLS."""

    address: str
    port: int
    host: str | None
    tls: bool = False

    def __str__(self) -> str:
        """Return `address:port`, with an IPv6 address in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Topology:
    """The hosts of one inventory and the way from each component to each other."""

    def __init__(self, nodes: Iterable[Node], settings: Settings) -> None:
        """Take the hosts; raises SettingsError when they cannot work together."""
        self.nodes = sorted(nodes, key=lambda node: node.name)
        self.settings = settings
        chosen = settings.network.exposed
        self.exposed = len(self.nodes) > 1 if chosen is None else chosen
        if missing := self._missing_groups():
            raise SettingsError("\n".join(missing))
        for group in ("database", "cache", "monitoring", "backup"):
            if len(self.members(group)) > 1:
                raise SettingsError(f"group `{group}` has more than one host; this version deploys one of each")
        if len(self.nodes) > 1 and not self.exposed:
            raise SettingsError(
                "network.exposed is false, and the inventory has several hosts, whose services have to reach each other"
            )
        if trouble := self._backup_trouble():
            raise SettingsError(trouble)

        for node in self.nodes if self.exposed else ():
            if not is_ipv4(node.address):
                raise SettingsError(
                    f"host {node.name}: services would listen on `{node.address}`; give the host's IPv4 address as its "
                    "data `address` in the inventory"
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

    def _needs_a_host(self, part: str, mode: str) -> bool:
        # An ERP that exists already is scraped on its hosts; other things that exist are outside of the inventory,
        # and what measures them for a Prometheus of yours is on the monitoring host.
        outside = self.settings.postgresql.existing or self.settings.redis.existing
        at_work = part == "erp" or (part == "prometheus" and outside is not None)
        return mode in {"deployed", "demo"} or (at_work and mode == "existing")

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

    @classmethod
    def of(cls, inventory: Any, settings: Settings) -> "Topology":
        """Read pyinfra's inventory."""
        return cls([node(host.name, host.data, host.groups) for host in inventory], settings)

    def members(self, *groups: str) -> list[Node]:
        """Return the hosts that are in any of the groups."""
        return [node for node in self.nodes if node.groups & set(groups)]

    def endpoint(self, node: Node, port: int) -> Endpoint:
        """Return a service of a host as everyone reaches it: through the host's gate, where there is one."""
        return Endpoint(node.address if self.exposed else LOOPBACK, port, node.name, tls=self.exposed)

    def database(self, seen_from: Node) -> Endpoint | None:
        """Return where PostgreSQL is, deployed or existing."""
        part = self.settings.postgresql
        return _existing(part.existing.address) if part.existing else self._near(part.mode, "database", 5432, seen_from)

    def redis(self, seen_from: Node) -> Endpoint | None:
        """Return where Redis is, deployed or existing."""
        part = self.settings.redis
        return _existing(part.existing.address) if part.existing else self._near(part.mode, "cache", 6379, seen_from)

    def _near(self, mode: str, group: str, port: int, seen_from: Node) -> Endpoint | None:
        """Return the service of the one host of a group; over loopback where that is the same host."""
        if mode != "deployed":
            return None
        (owner,) = self.members(group)
        return Endpoint(LOOPBACK, port, owner.name) if owner == seen_from else self.endpoint(owner, port)

    def backup_store(self) -> Endpoint | None:
        """Return where the inventory's own host keeps backups: SSH, so at its own address in any case."""
        hosts = self.members("backup") if self.settings.backup.mode == "deployed" else []
        return Endpoint(hosts[0].address, 2222, hosts[0].name) if hosts else None


def node(name: str, data: Any, groups: Iterable[str]) -> Node:
    """Return a host of an inventory; its address is its data `address`, or else the SSH host name."""
    address = data.get("address") or data.get("ssh_hostname") or name
    return Node(name, address, frozenset(groups) & set(GROUPS))


def settings_of(data: Any) -> tuple[Path, Settings]:
    """Return the settings file that a host's data name, read and checked. Raises SettingsError."""
    named = data.get("settings")
    path = Path(named or "settings.yml").resolve()
    if not path.exists():
        said = (
            "the inventory names this settings file, and it" if named else "the inventory names no `settings`, and this"
        )
        raise SettingsError(f"{path}: {said} is not there")
    return path, _load(path)


def secrets_of(data: Any, *, keep: bool = True) -> Secrets:
    """Return the secrets that a host's data name, read once in a run. Raises SecretsError."""
    path = Path(data.get("secrets") or settings_of(data)[0].with_suffix(".secrets.yml"))
    return open_secrets(path.absolute(), keep, data.get("age_identity"))


_load = functools.cache(load)


@functools.cache
def open_secrets(path: Path, keep: bool, identity: str | None) -> Secrets:
    """Return the secrets of a file, read once."""
    return Secrets(path, keep=keep, identity=identity)


def _existing(address: str) -> Endpoint:
    name, _, port = address.rpartition(":")
    return Endpoint(name.strip("[]"), int(port), None)


def is_ipv4(address: str) -> bool:
    """Say whether a text is an IPv4 address."""
    try:
        return bool(ipaddress.IPv4Address(address))
    except ValueError:
        return False
