"""All components, in the order in which they need each other."""

from collections.abc import Callable

from deploy.alertmanager.deploy import component as alertmanager
from deploy.backup.deploy import component as backup
from deploy.backup_store.deploy import component as backup_store
from deploy.component import Component
from deploy.database.deploy import component as database
from deploy.demo_data.deploy import component as demo_data
from deploy.erp.deploy import component as erp
from deploy.erp.deploy import load as erp_load
from deploy.firewall.deploy import component as firewall
from deploy.gate.deploy import component as gate
from deploy.grafana.deploy import component as grafana
from deploy.journal.deploy import component as journal
from deploy.mailbox.deploy import component as mailbox
from deploy.migrations.deploy import component as migrations
from deploy.node_exporter.deploy import component as node_exporter
from deploy.pgstat_exporter.deploy import component as pgstat_exporter
from deploy.plan import Plan
from deploy.postgresql.deploy import component as postgresql
from deploy.prometheus.deploy import component as prometheus
from deploy.redis.deploy import component as redis
from deploy.redis_exporter.deploy import component as redis_exporter
from deploy.tasks.deploy import component as tasks
from settings import SecretsError

COMPONENTS: dict[str, Callable[[Plan], Component | None]] = {
    "journal": journal,
    "node_exporter": node_exporter,
    "backup_store": backup_store,
    "postgresql": postgresql,
    "database": database,
    "backup": backup,
    "demo_data": demo_data,
    "migrations": migrations,
    "pgstat_exporter": pgstat_exporter,
    "redis": redis,
    "redis_exporter": redis_exporter,
    "tasks": tasks,
    "erp": erp,
    "mailbox": mailbox,
    "alertmanager": alertmanager,
    "prometheus": prometheus,
    "erp_load": erp_load,
    "grafana": grafana,
}


# Made from what the others of the same host let in; before them, so that whoever needs another host finds it open.
ENTRANCES = {"firewall": firewall, "gate": gate}
ORDER = (*ENTRANCES, *COMPONENTS)


def wanted(plan: Plan) -> dict[str, Component]:
    """Return the components of one host by name, in order. Raises SecretsError with all that is wrong."""
    found: dict[str, Component] = {}
    trouble: list[str] = []
    for name, describe in COMPONENTS.items():
        try:
            part = describe(plan)
        except SecretsError as error:
            trouble.append(str(error))
            continue
        if part:
            found[name] = part
    if trouble:
        raise SecretsError("\n".join(dict.fromkeys(trouble)))
    entrances = {name: part for name, describe in ENTRANCES.items() if (part := describe(plan, found.values()))}
    return entrances | found
