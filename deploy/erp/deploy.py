"""The demo ERP and, if wanted, a steady load on it."""

from deploy import apps
from deploy.component import Component, File, Unit, curl, render
from deploy.plan import Plan

_T = "erp/templates"
_UNIT, _LOAD = "messwarte-erp.service", "messwarte-erp-load.service"
_USER = 'u messwarte-erp - "Demo ERP"'


def component(plan: Plan) -> Component | None:
    """Return the demo ERP for an application host."""
    database = plan.topology.database()
    if plan.settings.erp.mode != "demo" or database is None or not plan.here("app"):
        return None
    app = plan.app("erp")
    unit = render(
        f"{_T}/{_UNIT}.j2",
        app=apps.current("erp"),
        database=database,
        listen=plan.listen,
        metrics_port=plan.settings.erp.metrics_port,
    )
    url = f"http://{plan.listen}:8000"
    return Component(
        "erp",
        packages=("python3", "libpq5", "curl"),
        users=(_USER,),
        archives=(app,),
        files=(
            File(_UNIT, unit),
            File("password", plan.secrets.get("postgres_erp_app"), 0o600),
            File("release", app.target),
        ),
        links={f"/etc/systemd/system/{_UNIT}": _UNIT},
        units=(Unit(_UNIT),),
        ready=(curl(f"{url}/healthz"),),
        ports=(8000, plan.settings.erp.metrics_port),
        url=f"{url}/",
        detail=f"database {database}",
    )


def load(plan: Plan) -> Component | None:
    """Return the load on the demo ERP of the same host."""
    rate = plan.settings.erp.demo_load
    if component(plan) is None or not rate:
        return None
    app = plan.app("erp")
    unit = render(f"{_T}/{_LOAD}.j2", app=apps.current("erp"), listen=plan.listen, rate=rate)
    return Component(
        "erp_load",
        users=(_USER,),
        archives=(app,),
        files=(File(_LOAD, unit), File("release", app.target)),
        links={f"/etc/systemd/system/{_LOAD}": _LOAD},
        units=(Unit(_LOAD),),
        detail=f"{rate:g} requests/s",
    )
