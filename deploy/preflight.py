"""What stands in the way of a deploy to one host: looked at before anything is changed, said all at once."""

import time
from collections.abc import Iterable

from deploy.component import Component
from deploy.plan import HostFacts, Plan
from settings.values import size_bytes

_RELEASE = "debian 13"
_MEMORY = 512 * 2**20
# Where a first deploy writes, and how many MB and inodes it may need there.
_FREE = {"/etc": (20, 2000), "/opt": (1024, 25_000), "/var/lib": (1024, 5000), "/var/cache/apt": (300, 500)}
_CLOCK_SECONDS = 60
_EVERY_ADDRESS = ("0.0.0.0", "::", "*")  # noqa: S104  read, not bound


def host_findings(facts: HostFacts) -> list[str]:
    """Return what is wrong with the host itself."""
    found = []
    if facts.debian != _RELEASE:
        found.append(f"it runs {facts.debian or 'an unknown system'}; Messwarte deploys to Debian 13")
    if not facts.root:
        found.append("commands do not run as root; log in as root, or set `_sudo` in the inventory")
    if facts.memory < _MEMORY:
        found.append(f"it has {facts.memory // 2**20} MB of memory; {_MEMORY // 2**20} MB is the least")
    found += _space_findings(facts)
    ahead = facts.clock - time.time()
    if abs(ahead) > _CLOCK_SECONDS:
        found.append(
            f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's; "
            "certificates, samples and alerts need the right time"
        )
    return found


def _space_findings(facts: HostFacts) -> list[str]:
    # Later ones put less beside what is there; but a program that is new comes whole.
    part, inode_part = (10, 2) if facts.applied else (1, 1)
    found = []
    for path, needed in _FREE.items():
        megabytes, inodes = needed[0] // part, needed[1] // inode_part
        free, free_inodes = facts.free[path]
        if free < megabytes * 2**20:
            found.append(f"{path} has {free // 2**20} MB free; a deploy may need {megabytes} MB there")
        if free_inodes is not None and free_inodes < inodes:
            found.append(f"{path} has {free_inodes} inodes free (df -i); a deploy may need {inodes} there")
    return found


def memory_findings(plan: Plan) -> list[str]:
    """Return which settings of memory are more than the host has."""
    given = {
        "postgresql.memory": (plan.settings.postgresql.mode, "database", plan.settings.postgresql.memory),
        "redis.memory": (plan.settings.redis.mode, "cache", plan.settings.redis.memory),
    }
    return [
        f"{name} is {memory}, and the host has {plan.facts.memory // 2**20} MB"
        for name, (mode, group, memory) in given.items()
        if mode == "deployed" and plan.here(group) and memory and size_bytes(memory) > plan.facts.memory
    ]


def port_findings(facts: HostFacts, components: Iterable[Component]) -> list[str]:
    """Return which ports of ours another program listens on, at an address that we need."""
    return [
        f"port {port}, which {component.name} needs, is taken by {program}" + (f" ({unit})" if unit else "")
        for component in components
        for address, port, program, unit in facts.listeners
        if port in component.ports and address in {*component.listens, *_EVERY_ADDRESS}
        if unit not in {one.name for one in component.units}
    ]
