"""Redis: broker and results of the task queue; named users only, AOF, nothing evicted."""

import hashlib

from deploy.component import Component, Door, File, Unit, render
from deploy.plan import Plan
from settings.values import size_bytes

_T = "redis/templates"


def component(plan: Plan) -> Component | None:
    """Return Redis for the cache host."""
    settings = plan.settings.redis
    if settings.mode != "deployed" or not plan.here("cache"):
        return None
    monitor = plan.secrets.get("redis_monitor")
    users = render(
        f"{_T}/users.acl.j2",
        tasks_hash=_hash(plan.secrets.get("redis_erp_tasks")),
        monitor_hash=_hash(monitor),
    )
    ping = "redis-cli --user messwarte_monitor --no-auth-warning ping"
    return Component(
        "redis",
        packages=("redis-server",),
        files=(
            File(
                "redis.conf",
                render(f"{_T}/redis.conf.j2", memory=size_bytes(settings.memory)),
            ),
            File("users.acl", users, 0o640, "root:redis"),
            File("monitor_password", monitor, 0o600),
            File("drop-in.conf", render(f"{_T}/drop-in.conf.j2")),
        ),
        links={"/etc/systemd/system/redis-server.service.d/messwarte.conf": "drop-in.conf"},
        folders={"/var/lib/redis": "750 redis:redis"},
        units=(Unit("redis-server.service"),),
        # The password is in the environment of root's own process, never an argument.
        ready=(f'REDISCLI_AUTH="$(cat /etc/messwarte/redis/current/monitor_password)" {ping} | grep -qx PONG',),
        ports=(6379,),
        doors=(Door(6379, to=("worker",), protocol="tcp"),),
        detail=f"port 6379, {settings.memory}, append-only file",
    )


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
