"""The demo ERP's tables and data; done once, never over rows that are there."""

from deploy import apps
from deploy.component import Component, File
from deploy.database.deploy import OWNER, OWNER_DSN, OWNER_USER
from deploy.plan import Plan
from deploy.postgresql.deploy import PSQL


def component(plan: Plan) -> Component | None:
    """Return the demo data for our own database host."""
    settings = plan.settings
    if settings.erp.mode != "demo" or settings.postgresql.mode != "deployed" or not plan.here("database"):
        return None
    app = plan.app("erp")
    generate = f"erp generate --dsn '{OWNER_DSN}' --size {settings.erp.demo_size} --if-empty"
    return Component(
        "demo_data",
        packages=("python3", "libpq5"),
        users=(OWNER_USER,),
        files=(File("size", settings.erp.demo_size),),
        archives=(app,),
        after=(apps.run(app.target, generate, OWNER),),
        ready=(f"{PSQL} -d erp -c 'SELECT 1 FROM lagerbewegung LIMIT 1' | grep -qx 1",),
        probes={"demo data": f"{PSQL} -d erp -c 'SELECT 1 FROM lagerbewegung LIMIT 1'"},
        detail=f"size {settings.erp.demo_size}",
    )
