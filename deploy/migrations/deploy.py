"""Versioned SQL of the ERP, applied on the database host over the socket, and the views' refresh timer."""

from deploy import apps
from deploy.component import Component, File, Unit, render
from deploy.database.deploy import OWNER, OWNER_DSN, OWNER_USER
from deploy.plan import Plan
from deploy.postgresql.deploy import PSQL

_T = "migrations/templates"
_HISTORY = "SELECT * FROM messwarte.migration_history ORDER BY 1"


def component(plan: Plan) -> Component | None:
    """Return the migrations for our own database host."""
    if plan.settings.postgresql.mode != "deployed" or not plan.here("database") or plan.settings.erp.mode == "off":
        return None
    app = plan.app("migrate")
    where = f"--dsn '{OWNER_DSN}' --directory {app.target}/sql/erp"
    service = render(f"{_T}/messwarte-refresh.service.j2", app=apps.current("migrate"), dsn=OWNER_DSN)
    return Component(
        "migrations",
        packages=("python3", "libpq5"),
        users=(OWNER_USER,),
        archives=(app,),
        files=(
            File("messwarte-refresh.service", service),
            File("messwarte-refresh.timer", render(f"{_T}/messwarte-refresh.timer.j2")),
            File("release", app.target),
        ),
        links={
            "/etc/systemd/system/messwarte-refresh.service": "messwarte-refresh.service",
            "/etc/systemd/system/messwarte-refresh.timer": "messwarte-refresh.timer",
        },
        units=(
            Unit("messwarte-refresh.service", start=False, enable=False),
            Unit("messwarte-refresh.timer"),
        ),
        after=tuple(apps.run(app.target, f"messwarte_migrate {verb} {where}", OWNER) for verb in ("apply", "refresh")),
        probes={"migration history": f'{PSQL} -d erp -c "{_HISTORY}"'},
        detail="versioned SQL applied; views refreshed every 5 minutes",
    )
