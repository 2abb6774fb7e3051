"""What a component's description may look at: settings, secrets, the inventory, and facts of its host."""

import functools
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deploy import apps
from deploy.component import Archive
from deploy.topology import LOOPBACK, Endpoint, Node, Topology
from settings import Secrets, Settings, certificates
from settings.certificates import HostCertificate


@dataclass(frozen=True)
class HostFacts:
    """Facts of a host: memory in bytes, free bytes and inodes by path, clock in seconds since 1970.

    `listeners` are address, TCP port, program and systemd unit of what listens, `applied` the components whose deploy
    was begun.
    """

    memory: int
    python: str
    machine: str
    debian: str
    root: bool
    clock: float
    free: dict[str, tuple[int, int | None]]
    listeners: tuple[tuple[str, int, str, str], ...]
    applied: list[str]
    grafana_there: bool
    grafana_reachable: bool


@dataclass(frozen=True)
class Plan:
    """Everything that decides what one host gets."""

    settings: Settings
    secrets: Secrets
    topology: Topology
    node: Node
    facts: HostFacts
    grafana: bool = True
    grafana_missing: str = ""

    @property
    def grafana_url(self) -> str | None:
        """The address that people open, or None where there is no Grafana."""
        if not self.grafana:
            return self.settings.grafana.url if self.settings.grafana.mode == "existing" else None
        (monitoring,) = self.topology.members("monitoring")
        return self.settings.grafana.url or _url(self.topology.endpoint(monitoring, 3000))

    @property
    def grafana_kept(self) -> bool:
        """Whether a Grafana that runs here goes on as it is, because its package cannot be had just now."""
        return self.grafana and bool(self.grafana_missing) and self.here("monitoring")

    @property
    def database(self) -> Endpoint | None:
        """Where this host reaches PostgreSQL, if there is one."""
        return self.topology.database(self.node)

    @property
    def redis(self) -> Endpoint | None:
        """Where this host reaches Redis, if there is one."""
        return self.topology.redis(self.node)

    def url(self, port: int) -> str:
        """Return the address at which people and other hosts reach a service of this host."""
        return _url(self.topology.endpoint(self.node, port))

    @functools.cached_property
    def certificate(self) -> HostCertificate:
        """This host's certificate: given, or of our own authority. Raises SecretsError."""
        folder = self.settings.network.certificates
        names = {self.node.address} if folder else {self.node.address, self.node.name, LOOPBACK}
        if self.here("monitoring") and self.settings.grafana.url:
            names.add(str(urlsplit(self.settings.grafana.url).hostname))
        if folder:
            return certificates.given(Path(folder), self.node.name, names)
        return certificates.own(self.secrets, self.node.name, names)

    @property
    def authority(self) -> str:
        """What this host checks others' certificates by (PEM)."""
        return self.certificate.authority

    @property
    def backup_missing(self) -> str:
        """What to say of a database that nobody has decided about; empty where its backups are on, or off by choice."""
        if self.settings.postgresql.mode != "deployed" or "backup" in self.settings.model_fields_set:
            return ""
        return (
            "PostgreSQL is deployed WITHOUT BACKUPS: a lost host is a lost database. Say where they go (`backup: "
            "{mode: deployed, ...}`, docs/settings.md), or, where something else makes them, `backup: {mode: off}`."
        )

    def here(self, group: str) -> bool:
        """Say whether this host belongs to a group."""
        return group in self.node.groups

    def app(self, name: str) -> Archive:
        """Return one of our distributions, made for this host's Python."""
        return apps.archive(name, self.facts.python, self.facts.machine)


def _url(endpoint: Endpoint) -> str:
    return f"{'https' if endpoint.tls else 'http'}://{endpoint}"
