"""From pyinfra's inventory to a plan: settings, secrets and facts of one host."""

import os
from typing import Any

from pyinfra.api.exceptions import PyinfraError

from deploy import preflight
from deploy.apps import AppError
from deploy.component import Component
from deploy.components import wanted
from deploy.facts import Facts
from deploy.grafana import source
from deploy.plan import Plan
from deploy.topology import Topology, secrets_of, settings_of
from settings import SecretsError, Settings, SettingsError


def make_plan(host: Any, inventory: Any) -> Plan:
    """Return what decides about one host. Raises SettingsError or SecretsError before anything is touched."""
    _, settings = settings_of(host.data)
    topology = Topology.of(inventory, settings)
    node = next(node for node in topology.nodes if node.name == host.name)
    from_repository = _wants_repository(settings) and "monitoring" in node.groups
    url = f"{settings.grafana.source.repository}/gpg.key" if from_repository else ""
    facts = host.get_fact(Facts, url=url)
    secrets = secrets_of(host.data, keep=os.environ.get("MESSWARTE_KEEP_SECRETS") != "no")
    if secrets.new and facts.applied:
        raise SecretsError(
            f"{secrets.path}: is missing, and {host.name} has been deployed with its secrets; put it back, or create "
            "it empty to have every secret made anew, which loses what is encrypted with the old ones"
        )
    reachable = facts.grafana_reachable or not url
    return Plan(settings, secrets, topology, node, facts, *_grafana(settings, reachable, facts.grafana_there))


def components(plan: Plan) -> dict[str, Component]:
    """Return what belongs on a host. Raises SettingsError with everything that stands in the way."""
    parts = wanted(plan)
    findings = [
        *preflight.host_findings(plan.facts),
        *preflight.memory_findings(plan),
        *preflight.port_findings(plan.facts, parts.values()),
    ]
    if findings:
        raise SettingsError("\n".join(f"{plan.node.name}: {finding}" for finding in findings))
    return parts


def belonging(host: Any, inventory: Any) -> tuple[Plan, dict[str, Component], list[str]]:
    """Return what decides about one host, what is deployed there, and the names of all that stays there.

    Raises PyinfraError: what an operator can put right is said without a trace.
    """
    try:
        plan = make_plan(host, inventory)
        parts = components(plan)
    except (AppError, SecretsError, SettingsError) as error:
        raise PyinfraError(str(error)) from None
    return plan, parts, [*parts, *(["grafana"] if plan.grafana_kept else [])]


def _wants_repository(settings: Settings) -> bool:
    return settings.grafana.mode == "deployed" and source.package(settings.grafana.source) is None


def _grafana(settings: Settings, reachable: bool, there: bool) -> tuple[bool, str]:
    """Return whether there is a Grafana after this run, and, where its package cannot be had, the reason."""
    if settings.grafana.mode != "deployed":
        return False, ""
    if reachable:
        return True, ""
    return there, (
        f"Grafana {'was left as it is' if there else 'was not deployed'}: {settings.grafana.source.repository} cannot "
        "be reached from the monitoring host. Set `grafana.source.repository` to a mirror, or `grafana.source.package` "
        "to a package file."
    )
