"""The task queue: a Celery worker and the API that starts tasks and shows their progress."""

from deploy import apps
from deploy.component import Component, Door, File, Unit, curl, render
from deploy.plan import Plan

_T = "tasks/templates"
_AUTHORITY = "/etc/messwarte/tasks/current/ca.pem"
_UNITS = {verb: f"messwarte-tasks-{verb}.service" for verb in ("worker", "api")}


def component(plan: Plan) -> Component | None:
    """Return worker and API for a worker host."""
    redis, database = plan.redis, plan.database
    if plan.settings.tasks.mode != "deployed" or not redis or not database or not plan.here("worker"):
        return None
    app = plan.app("tasks")
    environment = render(
        f"{_T}/environment.j2",
        app=apps.current("tasks"),
        redis=f"{'rediss' if redis.tls else 'redis'}://erp_tasks@{redis}",
        redis_options=f"?ssl_cert_reqs=required&ssl_ca_certs={_AUTHORITY}" if redis.tls else "",
        database=apps.database(database, "tasks"),
        concurrency=plan.settings.tasks.concurrency,
    )
    return Component(
        "tasks",
        packages=("python3", "libpq5", "curl"),
        users=('u messwarte-tasks - "ERP tasks"',),
        archives=(app,),
        files=(
            File("environment", environment),
            File("redis_password", plan.secrets.get("redis_erp_tasks"), 0o600),
            File("database_password", plan.secrets.get("postgres_erp_app"), 0o600),
            File("release", app.target),
            *([File("ca.pem", plan.authority)] if redis.tls or database.tls else []),
            *(File(unit, render(f"{_T}/unit.service.j2", verb=verb)) for verb, unit in _UNITS.items()),
        ),
        links={f"/etc/systemd/system/{unit}": unit for unit in _UNITS.values()},
        units=tuple(Unit(unit) for unit in _UNITS.values()),
        ready=(
            curl("http://127.0.0.1:8010/healthz"),
            curl("http://127.0.0.1:8012/metrics"),
            curl("http://127.0.0.1:8011/metrics"),
        ),
        ports=(8010, 8011, 8012),
        doors=(Door(8010, to=(), people=True), Door(8011), Door(8012)),
        url=f"{plan.url(8010)}/",
        detail=f"queues reports, imports, exports; {plan.settings.tasks.concurrency} at once",
    )
