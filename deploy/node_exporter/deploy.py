"""node exporter: CPU, memory, disks and network of every host."""

from deploy.component import Component, Door, File, Unit, curl, render
from deploy.plan import Plan


def component(plan: Plan) -> Component | None:
    """Return the node exporter; every host has one while there is a Prometheus."""
    if plan.settings.prometheus.mode == "off":
        return None
    # It reads /proc and /sys of the whole host.
    drop_in = render("node_exporter/templates/drop-in.conf.j2", sees_processes=True, netlink=True)
    return Component(
        "node_exporter",
        packages=("prometheus-node-exporter", "curl"),
        files=(File("drop-in.conf", drop_in),),
        links={"/etc/systemd/system/prometheus-node-exporter.service.d/messwarte.conf": "drop-in.conf"},
        units=(Unit("prometheus-node-exporter.service"),),
        ports=(9100,),
        ready=(curl("http://127.0.0.1:9100/metrics"),),
        doors=(Door(9100),),
        url=f"{plan.url(9100)}/metrics",
    )
