"""Our PostgreSQL exporter: over the socket beside our PostgreSQL, over TCP for an existing one."""

from pathlib import Path

from psycopg.conninfo import make_conninfo

from deploy import apps
from deploy.component import Component, Door, File, Unit, curl, render
from deploy.plan import Plan
from deploy.topology import Endpoint
from settings import SettingsError
from settings.model import ExistingPostgreSQL

ROLE = "messwarte_monitor"
_DATABASE = "erp"
_UNIT = "messwarte-pgstat-exporter.service"
_CREDENTIAL = f"/run/credentials/{_UNIT}/password"
_CA = "/etc/messwarte/pgstat_exporter/current/ca.pem"


def component(plan: Plan) -> Component | None:
    """Return the PostgreSQL exporter for the host that has to measure PostgreSQL."""
    database = plan.database
    if database is None or plan.settings.prometheus.mode == "off" or not plan.here(group(plan)):
        return None
    existing = plan.settings.postgresql.existing
    password_file = _CREDENTIAL if existing else None
    where = _where(existing, database) if existing else {"host": "/var/run/postgresql", "dbname": _DATABASE}
    config = render(
        "pgstat_exporter/templates/config.yml.j2",
        dsn=make_conninfo("", **where, user=ROLE, application_name="pgstat_exporter"),
        password_file=password_file,
        only=None if existing else _DATABASE,
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
            *([File("password", plan.secrets.get("postgres_monitor"), 0o600)] if existing else []),
            *([File("ca.pem", _certificate(existing.ca))] if existing and existing.ca else []),
        ),
        links={f"/etc/systemd/system/{_UNIT}": _UNIT},
        units=(Unit(_UNIT),),
        validate=(apps.run(app.target, "pgstat_exporter check --offline --config config.yml"),),
        ports=(9187,),
        ready=(curl(metrics), f"{_measures(metrics)} || {{ {_say_why(existing, str(database))}; exit 1; }}"),
        doors=(Door(9187),),
        url=f"{plan.url(9187)}/metrics",
        detail=f"measures {database}",
    )


def _where(part: ExistingPostgreSQL, database: Endpoint) -> dict[str, str | int]:
    root = {"sslrootcert": _CA if part.ca else "system"} if part.sslmode == "verify-full" else {}
    return {
        "host": database.address,
        "port": database.port,
        "dbname": part.database,
        "sslmode": part.sslmode,
        **root,
    }


def _certificate(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"postgresql.existing.ca: {path} cannot be read: {error}") from error


def _measures(metrics: str) -> str:
    return f"curl -fsS --max-time 5 {metrics} | grep -qx 'pg_up 1'"


def _say_why(existing: ExistingPostgreSQL | None, database: str) -> str:
    """Return what prints why PostgreSQL is not measured, on one line: `status` shows the last."""
    trouble = f"journalctl --no-pager --quiet --output cat --unit {_UNIT} --grep 'database: ' --lines 1"
    advice = "; if the role is missing or its password old, run: ./messwarte attach postgresql" if existing else ""
    return f'echo "{database} is not measured: $({trouble}){advice}"'


def group(plan: Plan) -> str:
    """Return the group whose host carries the exporter."""
    return "database" if plan.settings.postgresql.mode == "deployed" else "monitoring"
