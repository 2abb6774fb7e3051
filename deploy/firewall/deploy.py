"""The firewall: a table of its own in nftables, which lets in SSH and what the inventory implies."""

from collections.abc import Iterable, Iterator

from deploy.component import Component, Door, File, Unit, render
from deploy.gate.deploy import doors_of
from deploy.plan import Plan
from deploy.topology import is_ipv4

_UNIT = "messwarte-firewall.service"
_SHOWN = "/usr/sbin/nft --stateless list table inet messwarte"
_SSH_PROGRAMS = ("sshd", "ssh.service", "ssh.socket")


def component(plan: Plan, others: Iterable[Component]) -> Component | None:
    """Return the firewall of a host, where the settings want one."""
    if not plan.settings.network.firewall:
        return None
    ruleset = render(
        "firewall/templates/ruleset.nft.j2",
        anyone=sorted({*_ssh_ports(plan), *plan.settings.network.also_open}),
        rules=sorted(_rules(plan, doors_of(plan, others))) if plan.topology.exposed else [],
    )
    return Component(
        "firewall",
        packages=("nftables",),
        files=(
            File("ruleset.nft", ruleset),
            File(_UNIT, render(f"firewall/templates/{_UNIT}.j2")),
        ),
        links={f"/etc/systemd/system/{_UNIT}": _UNIT},
        units=(Unit(_UNIT, reload_for=("ruleset.nft",)),),
        # Rules that were changed in the kernel by hand leave the files as they are.
        after=("/usr/sbin/nft --file ruleset.nft",),
        validate=("/usr/sbin/nft --check --file ruleset.nft",),
        ready=(f"{_SHOWN} > /dev/null",),
        probes={"rules in the kernel": _SHOWN},
        detail="lets in SSH and what the inventory implies",
    )


def _rules(plan: Plan, doors: Iterable[Door]) -> Iterator[tuple[int, str]]:
    """Yield port and source address of everybody who may come."""
    for door in doors:
        sources = {node.address for node in plan.topology.members(*door.to) if node != plan.node}
        sources |= set(plan.settings.network.people) if door.people else set()
        sources |= _own_prometheus(plan) if "monitoring" in door.to else set()
        yield from ((door.port, source) for source in sources)


def _own_prometheus(plan: Plan) -> set[str]:
    """Return where a Prometheus that exists asks from, by address: nftables would look a name up but once."""
    existing = plan.settings.prometheus.existing
    host = existing.address.rpartition(":")[0] if existing else ""
    return {host} if is_ipv4(host) else set()


def _ssh_ports(plan: Plan) -> set[int]:
    """Return where this host's SSH server listens, ours for backups apart: never lock out who deploys."""
    listening = {
        port
        for _, port, program, unit in plan.facts.listeners
        if (program in _SSH_PROGRAMS or unit in _SSH_PROGRAMS) and not unit.startswith("messwarte-")
    }
    return listening | {22}
