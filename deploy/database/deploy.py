"""The ERP's database on our PostgreSQL: roles, their passwords as verifiers, the database, its extension."""

from deploy.component import Component, File, render
from deploy.plan import Plan
from deploy.postgresql.deploy import PSQL

# Who may act as erp_owner over the socket, and as nobody else.
OWNER = "messwarte-owner"
OWNER_USER = f'u {OWNER} - "Owner of the objects in the ERP database"'
_OURS = "'erp_owner', 'erp_app', 'messwarte_monitor'"
OWNER_DSN = "host=/var/run/postgresql dbname=erp user=erp_owner"


def component(plan: Plan) -> Component | None:
    """Return roles and database for the database host."""
    if plan.settings.postgresql.mode != "deployed" or not plan.here("database"):
        return None
    demo = "true" if plan.settings.erp.mode == "demo" else "false"
    acls = render("database/templates/acls.sql.j2", ours=_OURS, demo=demo)
    members = render("database/templates/members.sql.j2", ours=_OURS)
    roles = render(
        "database/templates/roles.sql.j2",
        ours=_OURS,
        acls=acls,
        members=members,
        app_verifier=plan.secrets.scram("postgres_erp_app"),
        monitor_verifier=plan.secrets.scram("postgres_monitor"),
    )
    home = "/etc/messwarte/database/current"
    return Component(
        "database",
        files=(
            File("roles.sql", roles, 0o600),
            File("probe.sql", render("database/templates/probe.sql.j2", ours=_OURS, acls=acls, members=members)),
        ),
        # On standard input: the file is root's alone, and no password is ever an argument.
        after=(f"{PSQL} < roles.sql",),
        probes={"roles and database": f"{PSQL} -d erp < {home}/probe.sql"},
        ready=(f"{PSQL} -d erp -c 'SELECT 1'",),
        detail="database erp; roles erp_owner, erp_app, messwarte_monitor",
    )
