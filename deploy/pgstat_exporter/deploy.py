"""Our PostgreSQL exporter: over the socket beside our PostgreSQL, over TCP for an existing one."""

from deploy import apps
from deploy.component import Component, Door, File, Unit, curl, render
from deploy.plan import Plan

_UNIT = "messwarte-pgstat-exporter.service"
_CREDENTIAL = f"/run/credentials/{_UNIT}/password"


def component(plan: Plan) -> Component | None:
    """Return the PostgreSQL exporter for the host that has to measure PostgreSQL."""
    database = plan.database
    if database is None or plan.settings.prometheus.mode != "deployed" or not plan.here(group(plan)):
        return None
    local = plan.settings.postgresql.mode == "deployed"
    where = "host=/var/run/postgresql" if local else f"host={database.address} port={database.port}"
    password_file = None if local else _CREDENTIAL
    config = render(
        "pgstat_exporter/templates/config.yml.j2",
        dsn=f"{where} dbname=erp user=messwarte_monitor application_name=pgstat_exporter",
        password_file=password_file,
    )
    unit = render(
        f"pgstat_exporter/templates/{_UNIT}.j2",
        app=apps.current("pgstat_exporter"),
        password_file=password_file,
    )
    app = plan.app("pgstat_exporter")
    metrics = "http://127.0.0.1:9187/metrics"
    return Component(
        "pgstat_exporter",
        packages=("python3", "libpq5", "curl"),
        users=('u messwarte-exporter - "Messwarte exporters"',),
        archives=(app,),
        files=(
            File("config.yml", config),
            File(_UNIT, unit),
            File("release", app.target),
            *([] if local else [File("password", plan.secrets.get("postgres_monitor"), 0o600)]),
        ),
        links={f"/etc/systemd/system/{_UNIT}": _UNIT},
        units=(Unit(_UNIT),),
        validate=(apps.run(app.target, "pgstat_exporter check --offline --config config.yml"),),
        ports=(9187,),
        ready=(f"{curl(metrics)} && curl -fsS --max-time 5 {metrics} | grep -qx 'pg_up 1.0'",),
        doors=(Door(9187),),
        url=f"{plan.url(9187)}/metrics",
        detail=f"measures {database}",
    )


def group(plan: Plan) -> str:
    """Return the group whose host carries the exporter."""
    return "database" if plan.settings.postgresql.mode == "deployed" else "monitoring"
