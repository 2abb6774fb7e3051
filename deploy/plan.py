"""What a component's description may look at: settings, secrets, the inventory, and facts of its host."""

from dataclasses import dataclass

from deploy import apps
from deploy.component import Archive
from deploy.topology import Node, Topology
from settings import Secrets, Settings


@dataclass(frozen=True)
class HostFacts:
    """Facts of a host: memory and free space (by path) in bytes, clock in seconds since 1970.

    `listeners` names program and systemd unit by TCP port, `applied` the components whose deploy was begun.
    """

    memory: int
    python: str
    machine: str
    debian: str
    root: bool
    clock: float
    free: dict[str, int]
    listeners: dict[int, tuple[str, str]]
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
            return None
        return self.settings.grafana.url or f"http://{self.topology.single('monitoring', 3000)}"

    @property
    def listen(self) -> str:
        """The address on which this host's services listen."""
        return self.topology.listen(self.node)

    def here(self, group: str) -> bool:
        """Say whether this host belongs to a group."""
        return group in self.node.groups

    def app(self, name: str) -> Archive:
        """Return one of our distributions, made for this host's Python."""
        return apps.archive(name, self.facts.python, self.facts.machine)
