"""A stack in a lab: which host carries what, and where each part answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx

from cli import stack
from lab import Lab, Machine
from lab.system import wait_until
from proof import mail
from proof.access import Access, load_options
from proof.alerts import Stack
from proof.grafana import Grafana
from proof.prometheus import Prometheus
from settings import Secrets


@dataclass(frozen=True)
class LabStack:
    """The components of a lab's stack, as `status` lists them."""

    lab: str
    lines: list[dict[str, Any]]

    @classmethod
    def of(cls, lab: str) -> "LabStack":
        """Ask a lab. Raises ClickException naming the components that are broken."""
        lines = stack.health(stack.LAB_INVENTORY)
        broken = [f"{line['component']} on {line['host']}: {line['detail']}" for line in lines if not line["healthy"]]
        if broken:
            raise click.ClickException("broken: " + "; ".join(broken))
        return cls(lab, lines)

    def url(self, component: str) -> str | None:
        """Return a component's address, or None where it is not deployed."""
        return next((line["url"] for line in self.lines if line["component"] == component), None)

    def base(self, component: str) -> str:
        """Return scheme, host and port of a component that has to be there."""
        url = self.url(component)
        if not url:
            raise click.ClickException(f"{component} is not deployed in lab {self.lab}")
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}"

    def machine(self, component: str) -> Machine:
        """Return the host that carries a component."""
        machines = Lab(self.lab, stack.STATE).machines()
        for line in self.lines:
            if line["component"] == component:
                return machines[line["host"]]
        raise click.ClickException(f"{component} is not deployed in lab {self.lab}")

    def parts(self) -> Stack:
        """Return how a proof reaches the stack."""
        access = self.access
        viewer = ("viewer", Secrets(self.secrets).get("grafana_viewer"))
        return Stack(
            database=self.machine("postgresql"),
            mailbox=self.machine("mailbox"),
            erp=load_options(stack.STATE / self.lab, self.base("erp")),
            prometheus=Prometheus(access.client(self.base("prometheus"))),
            grafana=Grafana(access.client(self.base("grafana"), viewer)) if self.url("grafana") else None,
        )

    @property
    def secrets(self) -> Path:
        """The file of the lab's secrets."""
        return stack.STATE / self.lab / "secrets.yml"

    @property
    def access(self) -> Access:
        """What passes the gates of the lab's hosts."""
        return Access.of(self.secrets)


def wait_for_data(parts: Stack) -> None:
    """Wait until every target is up, queries are counted, and the dead-man's switch has sent its mail."""
    down: dict[str, str] = {}

    def all_up() -> bool:
        nonlocal down
        targets = parts.prometheus.targets()
        down = {name: health for name, health in targets.items() if health != "up"}
        return bool(targets) and not down

    _watch("all targets up", all_up)
    _watch("queries of the ERP in Prometheus", lambda: parts.prometheus.value("sum(erp_db_query_count_total)") > 0)
    _watch(
        "the dead-man's switch's mail",
        lambda: any(one.alert == "DeadMansSwitch" for one in mail.read(parts.mailbox)),
    )


def _watch(what: str, condition: Callable[[], bool]) -> None:
    def holds() -> bool:
        try:
            return condition()
        except httpx.HTTPError:
            return False

    click.echo(f"waiting for {what}", err=True)
    wait_until(holds, what, 120, 0.5)
