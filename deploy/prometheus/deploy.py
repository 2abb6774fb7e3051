"""Prometheus: targets from the inventory, rules, retention by time and size."""

import alert_rules
from deploy.component import Component, File, Unit, curl, render
from deploy.plan import Plan
from deploy.topology import Endpoint

_SCRAPE_SECONDS = 15


def component(plan: Plan) -> Component | None:
    """Return Prometheus for the monitoring host."""
    settings = plan.settings
    if settings.prometheus.mode != "deployed" or not plan.here("monitoring"):
        return None
    rules = alert_rules.rule_files(window_factor=settings.timing.window_factor) | {
        "thresholds.yml": alert_rules.thresholds(
            slow_queries_per_hour=settings.thresholds.slow_queries_per_hour,
            endpoint_queries_per_minute=settings.thresholds.endpoint_queries_per_minute,
            endpoint_limits=settings.thresholds.endpoint_limits,
            backup_age_hours=settings.thresholds.backup_age_hours,
            restore_drill_age_days=settings.thresholds.restore_drill_age_days,
        )
    }
    scrape = round(_SCRAPE_SECONDS * 1000 * settings.timing.interval_factor)
    configuration = render(
        "prometheus/templates/prometheus.yml.j2",
        scrape_interval=f"{scrape}ms",
        scrape_timeout=f"{min(scrape, 10000)}ms",
        rule_files=sorted(rules),
        alertmanager=plan.topology.single("monitoring", 9093) if settings.alertmanager.mode == "deployed" else None,
        jobs=jobs(plan),
    )
    drop_in = render(
        "prometheus/templates/drop-in.conf.j2",
        listen=plan.listen,
        retention_time=settings.prometheus.retention_time,
        retention_size=settings.prometheus.retention_size,
    )
    rule_paths = {f"rules/{name}": text for name, text in rules.items()}
    url = f"http://{plan.listen}:9090"
    return Component(
        "prometheus",
        packages=("prometheus", "curl"),
        files=(
            File("prometheus.yml", configuration),
            File("drop-in.conf", drop_in),
            *(File(path, text) for path, text in rule_paths.items()),
        ),
        links={"/etc/systemd/system/prometheus.service.d/messwarte.conf": "drop-in.conf"},
        units=(Unit("prometheus.service", reload_for=("prometheus.yml", *rule_paths)),),
        validate=("promtool check config prometheus.yml",),
        ready=(
            curl(f"{url}/-/ready"),
            f"curl -fsS --max-time 2 {url}/metrics | grep -qx 'prometheus_config_last_reload_successful 1'",
        ),
        ports=(9090,),
        url=f"{url}/api/v1/targets",
        detail=f"keeps {settings.prometheus.retention_time}, at most {settings.prometheus.retention_size}",
    )


def jobs(plan: Plan) -> dict[str, list[Endpoint]]:
    """Return the targets of each scrape job."""
    settings, topology = plan.settings, plan.topology
    beside = {
        "postgres": ("database" if settings.postgresql.mode == "deployed" else "monitoring", 9187),
        "redis": ("cache" if settings.redis.mode == "deployed" else "monitoring", 9121),
        "erp": ("app", settings.erp.metrics_port),
    }
    wanted = {
        "postgres": topology.database() is not None,
        "redis": topology.redis() is not None,
        "erp": settings.erp.mode != "off",
    }
    found = {
        "prometheus": [topology.endpoint(plan.node, 9090)],
        "alertmanager": [topology.endpoint(plan.node, 9093)] if settings.alertmanager.mode == "deployed" else [],
        "node": [topology.endpoint(node, 9100) for node in topology.nodes],
        **{
            job: [topology.endpoint(node, port) for node in topology.members(group)] if wanted[job] else []
            for job, (group, port) in beside.items()
        },
    }
    if settings.tasks.mode == "deployed" and topology.redis() and topology.database():
        workers = topology.members("worker")
        found["tasks"] = [topology.endpoint(node, port) for node in workers for port in (8011, 8012)]
    if plan.grafana:
        found["grafana"] = [topology.endpoint(plan.node, 3000)]
    return {job: endpoints for job, endpoints in found.items() if endpoints}
