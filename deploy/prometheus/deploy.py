"""Prometheus: targets from the inventory, rules, retention by time and size."""

from dataclasses import replace
from typing import Any

import alert_rules
from deploy.component import Component, Door, File, Unit, curl, render
from deploy.gate import deploy as gate
from deploy.plan import Plan
from deploy.topology import Endpoint, Topology
from settings import Settings

_SCRAPE_SECONDS = 15
_CREDENTIAL = "/run/credentials/prometheus.service/scrape_password"


def component(plan: Plan) -> Component | None:
    """Return Prometheus for the monitoring host."""
    settings = plan.settings
    if settings.prometheus.mode != "deployed" or not plan.here("monitoring"):
        return None
    rules = rule_files(settings)
    configuration = render(
        "prometheus/templates/prometheus.yml.j2",
        rule_files=sorted(rules),
        alertmanager=settings.alertmanager.mode == "deployed",
        prefix="",
        password_file=_CREDENTIAL,
        **_scrape(plan.topology, grafana=plan.grafana),
    )
    drop_in = render(
        "prometheus/templates/drop-in.conf.j2",
        exposed=plan.topology.exposed,
        retention_time=settings.prometheus.retention_time,
        retention_size=settings.prometheus.retention_size,
    )
    rule_paths = {f"rules/{name}": text for name, text in rules.items()}
    local = "http://127.0.0.1:9090"
    return Component(
        "prometheus",
        packages=("prometheus", "curl"),
        files=(
            File("prometheus.yml", configuration),
            File("drop-in.conf", drop_in),
            *(File(path, text) for path, text in rule_paths.items()),
            *(gate.scraper(plan) if plan.topology.exposed else ()),
        ),
        links={"/etc/systemd/system/prometheus.service.d/messwarte.conf": "drop-in.conf"},
        # Whoever could write in the outer one could exchange the inner ones.
        folders=dict.fromkeys(("/var/lib/prometheus", "/var/lib/prometheus/metrics2"), "755 prometheus:prometheus"),
        units=(Unit("prometheus.service", reload_for=("prometheus.yml", *rule_paths)),),
        validate=("promtool check config prometheus.yml",),
        ready=(
            curl(f"{local}/-/ready"),
            f"curl -fsS --max-time 2 {local}/metrics | grep -qx 'prometheus_config_last_reload_successful 1'",
        ),
        ports=(9090,),
        doors=(Door(9090, people=True),),
        url=f"{plan.url(9090)}/api/v1/targets",
        detail=f"keeps {settings.prometheus.retention_time}, at most {settings.prometheus.retention_size}",
    )


def rule_files(settings: Settings) -> dict[str, str]:
    """Return the texts of all rule files by name."""
    return alert_rules.rule_files(window_factor=settings.timing.window_factor) | {
        "thresholds.yml": alert_rules.thresholds(
            slow_queries_per_hour=settings.thresholds.slow_queries_per_hour,
            endpoint_queries_per_minute=settings.thresholds.endpoint_queries_per_minute,
            endpoint_limits=settings.thresholds.endpoint_limits,
            backup_age_hours=settings.thresholds.backup_age_hours,
            restore_drill_age_days=settings.thresholds.restore_drill_age_days,
        )
    }


def scrape_configs(topology: Topology, password_file: str) -> str:
    """Return the scrape jobs as a file that an existing Prometheus includes (scrape_config_files)."""
    grafana = topology.settings.grafana.mode == "deployed"
    return render(
        "prometheus/templates/scrape.yml.j2",
        prefix="messwarte-",
        password_file=password_file,
        **_scrape(topology, grafana=grafana),
    )


def _scrape(topology: Topology, *, grafana: bool) -> dict[str, Any]:
    interval = round(_SCRAPE_SECONDS * 1000 * topology.settings.timing.interval_factor)
    return {
        "scrape_interval": f"{interval}ms",
        "scrape_timeout": f"{min(interval, 10000)}ms",
        "jobs": jobs(topology, grafana=grafana),
        "exposed": topology.exposed,
    }


def jobs(topology: Topology, *, grafana: bool) -> dict[str, list[Endpoint]]:
    """Return the targets of each scrape job."""
    settings = topology.settings
    beside = {
        "postgres": ("database" if settings.postgresql.mode == "deployed" else "monitoring", 9187),
        "redis": ("cache" if settings.redis.mode == "deployed" else "monitoring", 9121),
        "erp": ("app", settings.erp.metrics_port),
    }
    wanted = {
        "postgres": settings.postgresql.mode != "off",
        "redis": settings.redis.mode != "off",
        "erp": settings.erp.mode != "off",
    }

    def monitoring(port: int) -> list[Endpoint]:
        return [topology.endpoint(node, port) for node in topology.members("monitoring")]

    found = {
        "prometheus": monitoring(9090) if settings.prometheus.mode == "deployed" else [],
        "alertmanager": monitoring(9093) if settings.alertmanager.mode == "deployed" else [],
        "node": [topology.endpoint(node, 9100) for node in topology.nodes],
        **{
            job: [topology.endpoint(node, port) for node in topology.members(group)] if wanted[job] else []
            for job, (group, port) in beside.items()
        },
    }
    if settings.tasks.mode == "deployed" and wanted["redis"] and wanted["postgres"]:
        workers = topology.members("worker")
        found["tasks"] = [topology.endpoint(node, port) for node in workers for port in (8011, 8012)]
    if grafana:
        found["grafana"] = monitoring(3000)
    # What exists elsewhere is measured from the monitoring host, and has a name of its own.
    for job, part in (("postgres", settings.postgresql), ("redis", settings.redis)):
        if part.existing:
            found[job] = [replace(one, host=part.existing.address.rpartition(":")[0]) for one in found[job]]
    return {job: endpoints for job, endpoints in found.items() if endpoints}
