"""The demo ERP and, if wanted, a steady load on it."""

from deploy import apps
from deploy.component import Component, Door, File, Unit, curl, render
from deploy.plan import Plan

_T = "erp/templates"
_UNIT, _LOAD = "messwarte-erp.service", "messwarte-erp-load.service"
_USER = 'u messwarte-erp - "Demo ERP"'


def component(plan: Plan) -> Component | None:
    """Return the demo ERP for an application host."""
    database = plan.database
    if plan.settings.erp.mode != "demo" or database is None or not plan.here("app"):
        return None
    app = plan.app("erp")
    unit = render(
        f"{_T}/{_UNIT}.j2",
        app=apps.current("erp"),
        database=apps.database(database, "erp"),
        metrics_port=plan.settings.erp.metrics_port,
    )
    return Component(
        "erp",
        packages=("python3", "libpq5", "curl"),
        users=(_USER,),
        archives=(app,),
        files=(
            File(_UNIT, unit),
            File("password", plan.secrets.get("postgres_erp_app"), 0o600),
            File("release", app.target),
            *([File("ca.pem", plan.authority)] if database.tls else []),
        ),
        links={f"/etc/systemd/system/{_UNIT}": _UNIT},
        units=(Unit(_UNIT),),
        ready=(curl("http://127.0.0.1:8000/healthz"),),
        ports=(8000, plan.settings.erp.metrics_port),
        doors=(Door(8000, to=(), people=True), Door(plan.settings.erp.metrics_port)),
        url=f"{plan.url(8000)}/",
        detail=f"database {database}",
    )


def load(plan: Plan) -> Component | None:
    """Return the load on the demo ERP of the same host."""
    rate = plan.settings.erp.demo_load
    if component(plan) is None or not rate:
        return None
    app = plan.app("erp")
    unit = render(f"{_T}/{_LOAD}.j2", app=apps.current("erp"), rate=rate)
    return Component(
        "erp_load",
        users=(_USER,),
        archives=(app,),
        files=(File(_LOAD, unit), File("release", app.target)),
        links={f"/etc/systemd/system/{_LOAD}": _LOAD},
        units=(Unit(_LOAD),),
        detail=f"{rate:g} requests/s",
    )
