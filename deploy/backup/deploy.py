"""PostgreSQL's backups: pgBackRest, its place, the schedule, and the restore drill."""

from deploy import apps
from deploy.backup_store.deploy import FOLDER, USER
from deploy.component import Component, File, Unit, render
from deploy.plan import Plan
from settings.values import size_bytes

_T = "backup/templates"
_HOME = "/etc/messwarte/backup/current"
_STATE = "/var/lib/messwarte-backup"
_COMMAND = "/usr/local/sbin/messwarte-backup"
# Where the service of each timer leads: what it is, the verb, and its setting.
_TIMERS = {
    "messwarte-backup-full": ("Full backup of PostgreSQL", "run full", "full"),
    "messwarte-backup-differential": ("Differential backup of PostgreSQL", "run differential", "differential"),
    "messwarte-restore-drill": ("Restore drill of PostgreSQL's backups", "drill", "drill"),
}


def component(plan: Plan) -> Component | None:
    """Return backups for our own database host."""
    settings = plan.settings.backup
    if settings.mode != "deployed" or not plan.here("database"):
        return None
    app = plan.app("backup")
    return Component(
        "backup",
        packages=("pgbackrest", "python3"),
        archives=(app,),
        files=(*_files(plan), *_units(plan), File("release", app.target)),
        links={
            _COMMAND: "messwarte-backup",
            "/etc/pgbackrest/pgbackrest.conf": "pgbackrest.conf",
            # Node exporter reads what the drills and backups write.
            "/var/lib/prometheus/node-exporter/messwarte_backup.prom": f"{_STATE}/metrics.prom",
            **{
                f"/etc/systemd/system/{name}.{kind}": f"{name}.{kind}"
                for name in _TIMERS
                for kind in ("service", "timer")
            },
        },
        units=(
            *(Unit(f"{name}.service", start=False, enable=False) for name in _TIMERS),
            *(Unit(f"{name}.timer") for name in _TIMERS),
        ),
        before=(f"install -d -o postgres -g postgres {_STATE} {_STATE}/locks",),
        validate=(*_place_is_there(plan), *(f"systemd-analyze calendar '{when}'" for when in _schedule(plan).values())),
        after=(
            f"runuser -u postgres -- {_COMMAND} enroll '{place(plan)}'{_hint(plan)}",
            # The first backup, and the proof that it can be restored.
            f"runuser -u postgres -- {_COMMAND} need-backup 2>/dev/null "
            "|| systemctl start --no-block messwarte-backup-full.service messwarte-restore-drill.service",
        ),
        ready=(f"runuser -u postgres -- {_COMMAND} ready",),
        detail=f"to {place(plan)}; full {settings.full}, differential {settings.differential}, drill {settings.drill}",
    )


def place(plan: Plan) -> str:
    """Return where the backups go, as people read it."""
    settings, store = plan.settings.backup, plan.topology.backup_store()
    if settings.folder:
        return settings.folder
    if settings.s3:
        return f"s3://{settings.s3.bucket}{settings.s3.path}"
    if settings.sftp:
        return f"sftp://{settings.sftp.user}@{settings.sftp.address}{settings.sftp.path}"
    return f"sftp://{USER}@{store}{FOLDER}"


def _hint(plan: Plan) -> str:
    """Return what says, when an SFTP server of the operator's refuses, which key it has to know."""
    given = plan.settings.backup.sftp
    if not given:
        return ""
    trouble = f"{given.user} at {given.address} has to be allowed in with this key:"
    return f' || {{ echo "{trouble}"; cat id_ed25519.pub; exit 1; }}'


def _schedule(plan: Plan) -> dict[str, str]:
    return {name: getattr(plan.settings.backup, setting) for name, (_, _, setting) in _TIMERS.items()}


def _place_is_there(plan: Plan) -> tuple[str, ...]:
    """Return the check of a folder: made by us, it would hide a share that is not mounted."""
    folder = plan.settings.backup.folder
    if not folder:
        return ()
    trouble = f"backup.folder: {folder} is not there, or user postgres may not write to it"
    return (f"runuser -u postgres -- test -w {folder} || {{ echo '{trouble}'; exit 1; }}",)


def _files(plan: Plan) -> tuple[File, ...]:
    """Return pgBackRest's configuration, with its secrets, for root and postgres alone."""
    settings, secrets = plan.settings.backup, plan.secrets
    values = {
        "settings": settings,
        "home": _HOME,
        "state": _STATE,
        "wal_limit": size_bytes(settings.wal_limit),
        "passphrase": secrets.get("backup_passphrase") if settings.encryption else None,
    }
    texts: dict[str, str] = {}
    if settings.s3:
        values |= secrets.require("backup_s3_key", "backup_s3_key_secret")
    elif not settings.folder:
        private, public = secrets.ssh_key("backup_key")
        values["sftp"], known = _sftp(plan)
        texts = {"id_ed25519": private, "id_ed25519.pub": f"{public}\n", "known_hosts": known}
    texts["pgbackrest.conf"] = render(f"{_T}/pgbackrest.conf.j2", **values)
    launcher = render(f"{_T}/messwarte-backup.j2", app=apps.current("backup"), name=settings.name)
    return (
        *(File(name, text, 0o640, "root:postgres") for name, text in texts.items()),
        File("messwarte-backup", launcher, 0o755),
    )


def _sftp(plan: Plan) -> tuple[dict[str, str], str]:
    """Return the SFTP server's coordinates, and the lines of known_hosts that pin it."""
    given, store = plan.settings.backup.sftp, plan.topology.backup_store()
    if given:
        host, _, port = given.address.rpartition(":")
        where = {"host": host.strip("[]"), "port": port, "user": given.user, "path": given.path}
        keys = given.host_keys
    else:
        assert store is not None  # noqa: S101  the topology refuses a deploy without a place
        where = {"host": store.address, "port": str(store.port), "user": USER, "path": FOLDER}
        keys = [plan.secrets.ssh_key("backup_store_host_key")[1]]
    name = where["host"] if where["port"] == "22" else f"[{where['host']}]:{where['port']}"
    return where, "".join(f"{name} {key}\n" for key in keys)


def _units(plan: Plan) -> tuple[File, ...]:
    found = []
    for name, when in _schedule(plan).items():
        what, verb, _ = _TIMERS[name]
        service = render(
            f"{_T}/service.j2",
            what=what,
            command=f"{_COMMAND} {verb}",
            is_drill=verb == "drill",
            state=_STATE,
            folder=plan.settings.backup.folder,
        )
        timer = render(f"{_T}/timer.j2", what=what, when=when)
        found += [File(f"{name}.service", service), File(f"{name}.timer", timer)]
    return tuple(found)
