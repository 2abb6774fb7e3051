"""PostgreSQL 17: Debian's cluster `main`, our settings beside Debian's, narrow pg_hba."""

from deploy.component import Component, Door, File, Unit, render
from deploy.plan import Plan
from deploy.topology import LOOPBACK
from settings.values import seconds, size_bytes

_T = "postgresql/templates"
_BIN = "/usr/lib/postgresql/17/bin"
_DATA = "/var/lib/postgresql/17/main"
_ABOVE_DATA = ("/var/lib/postgresql", "/var/lib/postgresql/17")
_CONF = "/etc/postgresql/17/main/conf.d/messwarte.conf"
PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"
_UNIT = "postgresql@17-main.service"
_BAD_HBA = "SELECT line_number || ': ' || error FROM pg_hba_file_rules WHERE error IS NOT NULL"
# PostgreSQL takes names in any case, and some by what they were called before.
_SETTINGS = (
    "(SELECT CASE lower(name) WHEN 'sort_mem' THEN 'work_mem' WHEN 'vacuum_mem' THEN 'maintenance_work_mem' "
    "ELSE lower(name) END AS name, name AS said, setting, sourcefile, seqno FROM pg_file_settings)"
)
_OVERRIDDEN = (
    f"FROM (SELECT DISTINCT ON (name) * FROM {_SETTINGS} AS s ORDER BY name, seqno DESC) AS last "
    f"WHERE sourcefile <> '{_CONF}' AND name IN (SELECT name FROM pg_file_settings WHERE sourcefile = '{_CONF}')"
)
# Files beside ours are the host's people's; what they set again goes under a name that PostgreSQL does not read.
_SET_ASIDE = (
    f"while file=$({PSQL} -c \"SELECT sourcefile {_OVERRIDDEN} AND sourcefile LIKE '%/conf.d/%' LIMIT 1\") "
    '&& test -n "$file"; do mv --backup=numbered "$file" "$file.by-hand" || exit; done'
)
_STILL = "SELECT said || ' is set again in ' || sourcefile || ', after messwarte.conf: take it out there'"
_CURRENT = "/etc/messwarte/postgresql/current"
# The server has read its files when their moment of change (which no `touch` sets back) is before that of its reading.
_READ = f"SELECT pg_conf_load_time() > (pg_stat_file('{_CURRENT}/pg_hba.conf')).change"
_PENDING = "SELECT count(*) FROM pg_settings WHERE pending_restart"


def component(plan: Plan) -> Component | None:
    """Return PostgreSQL for the database host."""
    settings = plan.settings.postgresql
    if settings.mode != "deployed" or not plan.here("database"):
        return None
    memory = size_bytes(settings.memory) if settings.memory else plan.facts.memory
    clients = plan.topology.members("app", "worker")
    remote = sorted(node.address for node in clients if node != plan.node)
    listens = (LOOPBACK, *([plan.node.address] if remote else []))
    values = {
        "listen_addresses": ", ".join(listens),
        "max_connections": settings.max_connections,
        "memory_mb": memory // 2**20,
        # PostgreSQL knows other units, and ends at 24 days.
        "slow_query_ms": min(round(seconds(settings.slow_query) * 1000), 2**31 - 1),
        "local_clients": plan.node in clients,
        "remote_clients": remote,
        "backup": plan.settings.backup if plan.settings.backup.mode == "deployed" else None,
        "archive_timeout": max(1, round(seconds(plan.settings.backup.archive_timeout))),
    }
    tls = _tls(plan) if remote else ()
    plain = (
        "messwarte.conf",
        "pg_hba.conf",
        "pg_ident.conf",
        "start.conf",
        "check.conf",
        "overrides.sql",
        "probe.sql",
        *(file.path for file in tls),
    )
    return Component(
        "postgresql",
        packages=("postgresql-17",),
        files=(
            File("messwarte.conf", render(f"{_T}/messwarte.conf.j2", **values)),
            File("pg_hba.conf", render(f"{_T}/pg_hba.conf.j2", **values), 0o640, "root:postgres"),
            File("pg_ident.conf", render(f"{_T}/pg_ident.conf.j2"), 0o640, "root:postgres"),
            File("drop-in.conf", render(f"{_T}/drop-in.conf.j2", bin=_BIN, backup=values["backup"])),
            File("overrides.sql", render(f"{_T}/overrides.sql.j2", settings=_SETTINGS, conf=_CONF, data=_DATA)),
            *tls,
            File("probe.sql", render(f"{_T}/probe.sql.j2", settings=_SETTINGS, conf=_CONF)),
            File("start.conf", "auto\n"),
            File("check.conf", "include '/etc/postgresql/17/main/postgresql.conf'\ninclude 'messwarte.conf'\n"),
        ),
        links={
            _CONF: "messwarte.conf",
            # By this Debian's generator enables the unit.
            "/etc/postgresql/17/main/start.conf": "start.conf",
            f"/etc/systemd/system/{_UNIT}.d/messwarte.conf": "drop-in.conf",
        },
        folders={
            **dict.fromkeys(("/etc/postgresql/17/main/conf.d", *_ABOVE_DATA), "755 postgres:postgres"),
            _DATA: "700 postgres:postgres",
        },
        # The unit template is enabled by Debian's postgresql.service and its generator.
        units=(
            Unit(_UNIT, reload_for=(*plain, *(file.path for file in tls)), enable=False),
            Unit("postgresql.service", start=False),
        ),
        validate=(f'runuser -u postgres -- {_BIN}/postgres -C shared_buffers -c config_file="$PWD/check.conf"',),
        swapped=(f'! {_BIN}/pg_isready -q || test -z "$({PSQL} -c "{_BAD_HBA}" | tee /dev/stderr)"',),
        after=(
            f"{PSQL} < overrides.sql && {_SET_ASIDE} && {PSQL} -c 'SELECT pg_reload_conf()'",
            f'for try in $(seq 50); do test "$({PSQL} -c "{_READ}")" = t && exit; sleep 0.1; done; exit 1',
            f'! {PSQL} -c "{_STILL} {_OVERRIDDEN}" | grep .',
            f'test "$({PSQL} -c "{_PENDING}")" = 0 || systemctl restart {_UNIT} '
            f"|| {{ journalctl --no-pager --quiet --lines 9 --output cat --unit {_UNIT}; exit 1; }}",
        ),
        ports=(5432,),
        listens=listens,
        doors=(Door(5432, to=("app", "worker"), protocol="own"),),
        ready=(f"{PSQL} -c 'SELECT 1'",),
        probes={"settings": f"{PSQL} < /etc/messwarte/postgresql/current/probe.sql"},
        # A server that recovers from a crash takes its time.
        timeout=600,
        detail=f"port 5432, {values['memory_mb']} MB, {settings.max_connections} sessions",
    )


def _tls(plan: Plan) -> tuple[File, ...]:
    return (
        File("tls/server.pem", plan.certificate.chain),
        File("tls/server.key", plan.certificate.key, 0o640, "root:postgres"),
    )
