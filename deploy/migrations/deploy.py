"""Versioned SQL of the ERP, applied on the database host over the socket, and the views' refresh timer."""

from deploy import apps
from deploy.component import Component, File, Unit, render
from deploy.database.deploy import OWNER, OWNER_DSN, OWNER_USER
from deploy.plan import Plan
from deploy.postgresql.deploy import PSQL
from messwarte_migrate.files import load
from messwarte_migrate.objects import left

_T = "migrations/templates"
_SQL = apps.ROOT / "sql_migrations/erp"


def component(plan: Plan) -> Component | None:
    """Return the migrations for our own database host."""
    if plan.settings.postgresql.mode != "deployed" or not plan.here("database") or plan.settings.erp.mode == "off":
        return None
    app = plan.app("migrate")
    current = apps.current("migrate")
    command = render(
        f"{_T}/messwarte-migrate.j2", run=apps.run(current, "messwarte_migrate", OWNER), app=current, dsn=OWNER_DSN
    )
    service = render(f"{_T}/messwarte-refresh.service.j2", app=current, dsn=OWNER_DSN)
    return Component(
        "migrations",
        packages=("python3", "libpq5"),
        users=(OWNER_USER,),
        archives=(app,),
        files=(
            File("messwarte-migrate", command, 0o755),
            File("messwarte-refresh.service", service),
            File("messwarte-refresh.timer", render(f"{_T}/messwarte-refresh.timer.j2")),
            File("probe.sql", render(f"{_T}/probe.sql.j2", objects=sorted(left(load(_SQL))))),
            File("release", app.target),
        ),
        links={
            "/usr/local/sbin/messwarte-migrate": "messwarte-migrate",
            "/etc/systemd/system/messwarte-refresh.service": "messwarte-refresh.service",
            "/etc/systemd/system/messwarte-refresh.timer": "messwarte-refresh.timer",
        },
        units=(
            Unit("messwarte-refresh.service", start=False, enable=False),
            Unit("messwarte-refresh.timer"),
        ),
        after=("./messwarte-migrate apply", "./messwarte-migrate refresh"),
        probes={"versioned SQL": f"{PSQL} -d erp < /etc/messwarte/migrations/current/probe.sql"},
        detail="versioned SQL is applied; `messwarte-migrate status` on this host shows it",
    )
