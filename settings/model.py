"""What an operator can set: one YAML file beside the inventory, checked whole before any host is touched."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from settings import values

# YAML reads a bare `off` as false.
_Off = BeforeValidator(values.off)
Mode = Annotated[Literal["deployed", "off"], _Off]
ServerMode = Annotated[Literal["deployed", "existing", "off"], _Off]
ErpMode = Annotated[Literal["demo", "existing", "off"], _Off]
Duration = Annotated[str, AfterValidator(values.duration)]
Retention = Annotated[str, AfterValidator(values.retention)]
Size = Annotated[str, AfterValidator(values.size)]
Url = Annotated[str, AfterValidator(values.url)]
HostPort = Annotated[str, AfterValidator(values.host_port)]
Network4 = Annotated[str, AfterValidator(values.network)]
Port = Annotated[int, Field(ge=1, le=65535)]
MailAddress = Annotated[str, AfterValidator(values.mail_address)]
Folder = Annotated[str, AfterValidator(values.folder)]
Calendar = Annotated[str, AfterValidator(values.calendar)]
HostKey = Annotated[str, AfterValidator(values.host_key)]


class SettingsError(Exception):
    """A settings file that cannot be used; the message names file, setting, value and what would be right."""


class Strict(BaseModel):
    """Unknown settings are errors, and values are not converted from other types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Network(Strict):
    """How hosts and people reach what was deployed: over TLS and with a password, or not at all."""

    exposed: bool | None = Field(
        default=None,
        description="Services can be reached at each host's own address, through a gate that asks for a password. "
        "Without it, they can where the inventory has several hosts; else everything stays on loopback.",
    )
    certificates: str | None = Field(
        default=None,
        description="Folder on the control machine with `HOST.pem` (chain), `HOST.key` and `ca.pem`; without it, the "
        "stack has an authority of its own.",
    )
    firewall: bool = Field(
        default=False,
        description="nftables let in SSH, and what the inventory implies from where it implies it; nothing else.",
    )
    people: list[Network4] = Field(
        default=["0.0.0.0/0"],
        min_length=1,
        description="With `firewall`: from where people may open Grafana, Prometheus, Alertmanager, ERP and tasks.",
    )
    also_open: list[Port] = Field(
        default=[], description="With `firewall`: further TCP ports of every host that anyone may reach."
    )


class Existing(Strict):
    """A component that is there already and is only attached."""

    address: HostPort = Field(description="`host:port` of the component that exists already.")


class ExistingPostgreSQL(Existing):
    """A PostgreSQL that is there already; `./messwarte attach postgresql` prints these settings."""

    database: str = Field(default="erp", min_length=1, max_length=63, description="Name of the ERP's database.")
    sslmode: Literal["prefer", "require", "verify-full"] = Field(
        default="prefer",
        description="TLS to it, as libpq names it: where the server offers it, always, or always and with its "
        "certificate verified.",
    )
    ca: str | None = Field(
        default=None,
        description="Path on the control machine of the certificate that `verify-full` trusts; else the monitoring "
        "host's own store.",
    )


class PostgreSQL(Strict):
    """The ERP's database server."""

    mode: ServerMode = Field(
        default="deployed", description="`deployed` on the hosts of group `database`, `existing`, or `off`."
    )
    existing: ExistingPostgreSQL | None = Field(default=None, description="Where it is, with `mode: existing`.")
    memory: Size | None = Field(
        default=None,
        description="Memory that PostgreSQL may plan with, for example `8GB`; else the host's own.",
    )
    max_connections: int = Field(default=200, ge=20, le=5000, description="Sessions at once.")
    slow_query: Duration = Field(
        default="1s",
        description="Statements slower than this are logged with their plan (auto_explain, JSON).",
    )


class BackupSftp(Strict):
    """An SFTP server outside of the inventory; our public key is `id_ed25519.pub` beside pgbackrest.conf."""

    address: HostPort = Field(description="SFTP server, `host:port`.")
    user: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="Who logs in there, with our key.")
    path: Folder = Field(description="Folder there, as that user sees it.")
    host_keys: list[HostKey] = Field(
        min_length=1, description="The server's public keys, all that `ssh-keyscan` shows: `ssh-ed25519 AAAA...`."
    )


class BackupS3(Strict):
    """An S3 bucket; its keys are the secrets `backup_s3_key` and `backup_s3_key_secret`."""

    endpoint: HostPort = Field(description="S3 server, `host:port`, reached over TLS.")
    region: str = Field(pattern=r"^[A-Za-z0-9-]+$", description="The bucket's region.")
    bucket: str = Field(pattern=r"^[A-Za-z0-9.-]+$", description="The bucket, which exists already.")
    path: Folder = Field(default="/", description="Folder in the bucket.")
    path_style: bool = Field(default=False, description="Name the bucket in the path, not in the host name.")


class Backup(Strict):
    """Backups of the deployed PostgreSQL by pgBackRest: at most one place, or else the host of group `backup`."""

    mode: Mode = Field(
        default="off", description="`deployed`, or `off`, which a deploy warns of as long as nobody wrote it."
    )
    folder: Folder | None = Field(default=None, description="Place: a folder of the database host, such as a share.")
    sftp: BackupSftp | None = Field(default=None, description="Place: an SFTP server.")
    s3: BackupS3 | None = Field(default=None, description="Place: an S3 bucket.")
    name: str = Field(
        default="main",
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="Name of the database at its place; a new name begins a new series of backups.",
    )
    encryption: bool = Field(
        default=True, description="AES-256 with the secret `backup_passphrase`; cannot be changed later."
    )
    full: Calendar = Field(default="Sun 01:30", description="When full backups are made (systemd's OnCalendar).")
    differential: Calendar = Field(default="Mon..Sat 01:30", description="When differential ones are made.")
    drill: Calendar = Field(default="Sun 05:00", description="When a restore is tried out.")
    keep_full: int = Field(
        default=4, ge=1, le=1000, description="Full backups that are kept, with what builds on them."
    )
    archive_timeout: Duration = Field(
        default="60s", description="WAL is brought to the place at the latest after this; the most that is lost."
    )
    wal_limit: Size = Field(
        default="16GB",
        description="More WAL than this that waits for its place is given up, so that the database can go on.",
    )
    processes: int = Field(default=2, ge=1, le=64, description="Processes that compress and transfer.")


class Redis(Strict):
    """Broker and result store of the task queue."""

    mode: ServerMode = Field(
        default="deployed", description="`deployed` on the hosts of group `cache`, `existing`, or `off`."
    )
    existing: Existing | None = Field(default=None, description="Where it is, with `mode: existing`.")
    memory: Size = Field(default="512MB", description="Redis refuses writes above this; nothing is evicted.")


class Prometheus(Strict):
    """Measures, keeps and evaluates."""

    mode: ServerMode = Field(
        default="deployed",
        description="`deployed` on the hosts of group `monitoring`, `existing` (see `./messwarte attach prometheus`), "
        "or `off`.",
    )
    existing: Existing | None = Field(
        default=None, description="Where it is, with `mode: existing`: our Grafana asks it."
    )
    retention_time: Retention = Field(default="90d", description="Samples older than this are deleted.")
    retention_size: Size = Field(default="20GB", description="Oldest samples go when the data grows over this.")


class Email(Strict):
    """Alerts by e-mail; the password, if any, is the secret `smtp_password`."""

    smarthost: HostPort = Field(description="SMTP server, `host:port`.")
    sender: MailAddress = Field(description="From address.")
    recipients: list[MailAddress] = Field(min_length=1, description="To addresses.")
    require_tls: bool = Field(default=True, description="Refuse a server that offers no STARTTLS.")
    username: str | None = Field(default=None, description="SMTP login.")


class Teams(Strict):
    """Alerts to a Microsoft Teams channel; the workflow's address is the secret `teams_webhook_url`."""


class Slack(Strict):
    """Alerts to Slack; the webhook's address is the secret `slack_api_url`."""

    channel: str = Field(description="Channel, for example `#erp-alerts`.")


class Alertmanager(Strict):
    """Groups alerts and brings them to people."""

    mode: Mode = Field(default="deployed", description="`deployed` on the hosts of group `monitoring`, or `off`.")
    email: Email | None = Field(default=None, description="Alerts by e-mail.")
    teams: Teams | None = Field(default=None, description="Alerts to Teams; `{}` switches it on.")
    slack: Slack | None = Field(default=None, description="Alerts to Slack.")


class GrafanaSource(Strict):
    """Where Grafana's package comes from; at most one of them."""

    repository: Url = Field(
        default="https://apt.grafana.com", description="APT repository: Grafana's own, or a mirror of it."
    )
    package: str | None = Field(
        default=None,
        description="Path on the control machine of an official `.deb` or `.tar.gz` (no internet).",
    )


class Grafana(Strict):
    """What viewers open."""

    mode: ServerMode = Field(
        default="deployed",
        description="`deployed` on the hosts of group `monitoring`, `existing` at `url` (see `./messwarte attach "
        "grafana`), or `off`.",
    )
    url: Url | None = Field(default=None, description="Address that people open and that links in messages lead to.")
    source: GrafanaSource = GrafanaSource()


class Erp(Strict):
    """The application that is measured."""

    mode: ErpMode = Field(
        default="off",
        description="`demo` deploys the demo ERP to group `app`; `existing` scrapes your own there.",
    )
    metrics_port: int = Field(default=8001, ge=1, le=65535, description="Port of the ERP's /metrics.")
    demo_size: Literal["small", "medium", "large"] = Field(
        default="small", description="Demo data: 100,000, 2 million or 20 million movements."
    )
    demo_load: float = Field(default=0, ge=0, le=200, description="Demo load in requests per second; 0 is none.")


class Tasks(Strict):
    """The task queue's worker and API."""

    mode: Mode = Field(default="deployed", description="`deployed` on the hosts of group `worker`, or `off`.")
    concurrency: int = Field(default=2, ge=1, le=64, description="Tasks at once on each worker host.")


class Thresholds(Strict):
    """When alerts fire."""

    slow_queries_per_hour: float = Field(default=10, gt=0, description="ErpManySlowQueries: more in an hour.")
    endpoint_queries_per_minute: float = Field(
        default=100, gt=0, description="ErpEndpointQueryRate: more from one endpoint."
    )
    endpoint_limits: dict[str, float] = Field(
        default={}, description="Limits of single endpoints, by route template: `/artikel/{id}: 600`."
    )
    backup_age_hours: float = Field(default=36, gt=0, description="BackupTooOld: since the last good backup.")
    restore_drill_age_days: float = Field(
        default=8, gt=0, description="RestoreDrillTooOld: since a restore last worked."
    )


class Timing(Strict):
    """Factors that shorten the clockwork for a rehearsal; 1 in production."""

    interval_factor: float = Field(
        default=1.0, gt=0, le=1, description="On scrape, evaluation and notification intervals."
    )
    window_factor: float = Field(default=1.0, gt=0, le=1, description="On the rules' windows and `for`.")


class Journal(Strict):
    """systemd's journal, where all services of every host log."""

    max_size: Size = Field(default="1GB", description="Oldest entries go when a host's journal grows over this.")


class Settings(Strict):
    """Everything that can be set, with defaults that suit production."""

    network: Network = Network()
    postgresql: PostgreSQL = PostgreSQL()
    backup: Backup = Backup()
    redis: Redis = Redis()
    prometheus: Prometheus = Prometheus()
    alertmanager: Alertmanager = Alertmanager()
    grafana: Grafana = Grafana()
    erp: Erp = Erp()
    tasks: Tasks = Tasks()
    thresholds: Thresholds = Thresholds()
    timing: Timing = Timing()
    journal: Journal = Journal()
    mailbox: bool = Field(
        default=False,
        description="An SMTP server with a local mailbox on the monitoring host, for trying out.",
    )

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "Settings":
        for name in ("postgresql", "redis", "prometheus"):
            part = getattr(self, name)
            if (part.mode == "existing") != (part.existing is not None):
                raise ValueError(f"{name}: `existing: {{address: host:port}}` belongs to `mode: existing`")
        if self.grafana.mode == "existing" and self.grafana.url is None:
            raise ValueError("grafana: `mode: existing` needs its `url`, for example `https://grafana.example.com`")
        there = self.postgresql.existing
        if there and there.ca and there.sslmode != "verify-full":
            raise ValueError("postgresql.existing: `ca` belongs to `sslmode: verify-full`")
        places = [place for place in ("folder", "sftp", "s3") if getattr(self.backup, place) is not None]
        if len(places) > 1:
            raise ValueError(f"backup: one place, not several ({', '.join(places)})")
        if self.backup.mode == "deployed" and self.postgresql.mode != "deployed":
            raise ValueError("backup: `mode: deployed` belongs to `postgresql: {mode: deployed}`")
        if min(self.timing.interval_factor * 15, 15) * 4 > self.timing.window_factor * 300 + 1e-9:
            raise ValueError("timing: no rule window may be shorter than four scrape intervals; raise window_factor")
        return self


def load(path: Path) -> Settings:
    """Read a settings file; an absent file means the defaults. Raises SettingsError."""
    if not path.exists():
        return Settings()
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=values.UniqueKeys)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    if content is None:
        raise SettingsError(f"{path}: holds no setting; write `{{}}` where the defaults of all are meant")
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(path, dict(one)) for one in error.errors())) from error


def _explain(path: Path, error: dict[str, object]) -> str:
    location = error["loc"]
    setting = ".".join(str(part) for part in location) if isinstance(location, tuple) else str(location)
    if error["type"] == "extra_forbidden":
        return f"{path}: {setting}: there is no such setting; {_known(setting)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    # A rule about the whole names its settings itself.
    given = "" if error["type"] == "missing" or not setting else f" (given: {error['input']!r})"
    return f"{path}: {setting or 'settings'}: {message}{given}"


def _known(setting: str) -> str:
    model: type[BaseModel] = Settings
    for part in setting.split(".")[:-1]:
        model = values.model_of(model, part) or model
    return f"there are: {', '.join(model.model_fields)}"
