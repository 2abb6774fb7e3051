"""Redis exporter: beside Redis where we deployed it, else on the monitoring host."""

import json

from deploy.component import Component, Door, File, Unit, curl, render
from deploy.plan import Plan


def component(plan: Plan) -> Component | None:
    """Return the Redis exporter for the host that has to measure Redis."""
    redis = plan.redis
    if redis is None or plan.settings.prometheus.mode == "off" or not plan.here(group(plan)):
        return None
    password = plan.secrets.get("redis_monitor")
    local = "http://127.0.0.1:9121/metrics"
    return Component(
        "redis_exporter",
        packages=("prometheus-redis-exporter", "curl"),
        files=(
            File("passwords.json", json.dumps({f"redis://messwarte_monitor@{redis}": password}), 0o600),
            File(
                "drop-in.conf",
                render("redis_exporter/templates/drop-in.conf.j2", redis=redis),
            ),
        ),
        links={"/etc/systemd/system/prometheus-redis-exporter.service.d/messwarte.conf": "drop-in.conf"},
        units=(Unit("prometheus-redis-exporter.service"),),
        ready=(f"{curl(local)} && curl -fsS --max-time 2 {local} | grep -qx 'redis_up 1'",),
        ports=(9121,),
        doors=(Door(9121),),
        url=f"{plan.url(9121)}/metrics",
        detail=f"measures {redis}",
    )


def group(plan: Plan) -> str:
    """Return the group whose host carries the exporter."""
    return "cache" if plan.settings.redis.mode == "deployed" else "monitoring"
