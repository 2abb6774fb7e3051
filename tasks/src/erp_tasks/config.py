"""Configuration from environment variables; passwords come from files only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

QUEUES = ("reports", "imports", "exports")


class ConfigError(Exception):
    """A setting that cannot be used; the message names the variable."""


@dataclass(frozen=True)
class Config:
    """What worker and API need; times in seconds."""

    broker: str
    results: str
    database: str
    database_password_file: Path | None
    listen: str
    port: int
    metrics_port: int
    worker_metrics_port: int
    concurrency: int
    soft_time_limit: int
    shutdown_timeout: int
    lease: int

    @property
    def time_limit(self) -> int:
        """Seconds after which a task that ignored its soft limit is killed."""
        return self.soft_time_limit + 60

    @property
    def visibility_timeout(self) -> int:
        """Seconds until Redis hands an unacknowledged task to another worker; must outlast any running task."""
        return 2 * self.time_limit

    def database_password(self) -> str | None:
        """Read the database password, at every connection, so that it can be changed without a restart."""
        return _read(self.database_password_file) if self.database_password_file else None


def load(environment: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration of an environment. Raises ConfigError."""
    password_file = environment.get("ERP_TASKS_REDIS_PASSWORD_FILE")
    password = _read(Path(password_file)) if password_file else None
    database_file = environment.get("ERP_DATABASE_PASSWORD_FILE")

    def number(name: str, default: int) -> int:
        text = environment.get(f"ERP_TASKS_{name}", str(default))
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"ERP_TASKS_{name} must be a whole number from 1 on, not {text!r}")
        return int(text)

    return Config(
        broker=_with_password(environment.get("ERP_TASKS_BROKER", "redis://127.0.0.1:6379/0"), password),
        results=_with_password(environment.get("ERP_TASKS_RESULTS", "redis://127.0.0.1:6379/1"), password),
        database=environment.get("ERP_DATABASE", "dbname=erp"),
        database_password_file=Path(database_file) if database_file else None,
        listen=environment.get("ERP_TASKS_LISTEN", "127.0.0.1"),
        port=number("PORT", 8010),
        metrics_port=number("METRICS_PORT", 8012),
        worker_metrics_port=number("WORKER_METRICS_PORT", 8011),
        concurrency=number("CONCURRENCY", 2),
        soft_time_limit=number("SOFT_TIME_LIMIT", 1800),
        shutdown_timeout=number("SHUTDOWN_TIMEOUT", 60),
        lease=number("LEASE", 60),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"cannot read the password file {path}: {error.strerror}") from error


def _with_password(url: str, password: str | None) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise ConfigError("ERP_TASKS_BROKER and ERP_TASKS_RESULTS must be like redis://user@host:6379/0")
    if password is None:
        return url
    user, _, address = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{quote(password, safe='')}@{address}"))
