"""What the secrets of an inventory are for, and which of them a rotation can make."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A secret: what it opens, and where only somebody else can change it, who (`by`).

    `server` is the setting's section of the server that checks it: one that exists already keeps its own passwords.
    """

    purpose: str
    server: str = ""
    by: str = ""


# Seen with Grafana 12.4: it starts with another key, and turns such passwords into other bytes without a word.
_KEY = (
    "Grafana encrypts with it what people stored there, such as passwords of data sources of their own; under another "
    "key these become useless, silently, and Grafana has no way to encrypt them anew"
)

_FOR_GOOD = (
    "pgBackRest encrypts a repository under one passphrase for good; a new one needs a new place, and the old backups "
    "need the old one"
)

KNOWN: Mapping[str, Known] = {
    "postgres_erp_app": Known("PostgreSQL's role erp_app: the ERP and its tasks", "postgresql"),
    "postgres_monitor": Known("PostgreSQL's role messwarte_monitor: the exporter of a server elsewhere", "postgresql"),
    "redis_erp_tasks": Known("Redis' user erp_tasks: the task queue", "redis"),
    "redis_monitor": Known("Redis' user messwarte_monitor: its exporter", "redis"),
    "grafana_admin": Known("Grafana's user admin"),
    "grafana_viewer": Known("Grafana's user viewer: people"),
    "grafana_secret_key": Known("encrypts what Grafana keeps", by=_KEY),
    "gate_operator": Known("people at the gates of Prometheus, Alertmanager, the demo ERP and the task queue"),
    "gate_prometheus": Known("Prometheus at the gates of all hosts"),
    "backup_key": Known("SSH key of PostgreSQL's backups: public half to the SFTP server"),
    "backup_store_host_key": Known("SSH host key of the inventory's own SFTP server for backups"),
    "backup_passphrase": Known("encrypts the backups", by=_FOR_GOOD),
    "backup_s3_key": Known("S3 access key for the backups", by="the S3 server's administrator gives it"),
    "backup_s3_key_secret": Known("S3 secret key for the backups", by="the S3 server's administrator gives it"),
    "tls_authority": Known("signs the hosts' certificates, which are made anew with it"),
    "smtp_password": Known("SMTP login of alertmanager.email", by="the mail server gives it"),
    "teams_webhook_url": Known("the Teams workflow's address", by="Teams gives it"),
    "slack_api_url": Known("the Slack webhook's address", by="Slack gives it"),
}
