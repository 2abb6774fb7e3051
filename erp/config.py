"""Configuration from environment variables; the database's password comes from a file only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from erp import ErpError


@dataclass(frozen=True)
class Config:
    """What the server needs; no metrics port: no metrics server."""

    database: str
    password_file: Path | None = None
    listen: str = "127.0.0.1"
    port: int = 8000
    metrics_listen: str = "127.0.0.1"
    metrics_port: int | None = None
    pool_size: int = 10

    def password(self) -> str | None:
        """Read the password, at every connection, so that it can be changed without a restart. Raises ErpError."""
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text().strip()
        except OSError as error:
            raise ErpError(f"ERP_DATABASE_PASSWORD_FILE: cannot read {self.password_file}: {error.strerror}") from error


def load(environment: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration of an environment. Raises ErpError, naming the variable."""

    def number(name: str, default: int, highest: int) -> int:
        text = environment.get(name, str(default))
        if not text.isdecimal() or not 1 <= int(text) <= highest:
            raise ErpError(f"{name} must be a whole number from 1 to {highest}, not {text!r}")
        return int(text)

    database = environment.get("ERP_DATABASE", "dbname=erp")
    try:
        parts = conninfo_to_dict(database)
    except psycopg.Error as error:
        raise ErpError(f"ERP_DATABASE must be like `host=... dbname=erp user=erp_app`: {error}") from error
    if "password" in parts:
        raise ErpError("ERP_DATABASE must not hold the password: put it into the file ERP_DATABASE_PASSWORD_FILE")
    listen = environment.get("ERP_LISTEN", "127.0.0.1")
    password_file = environment.get("ERP_DATABASE_PASSWORD_FILE")
    config = Config(
        database=database,
        password_file=Path(password_file) if password_file else None,
        listen=listen,
        port=number("ERP_PORT", 8000, 65535),
        metrics_listen=environment.get("ERP_METRICS_LISTEN", listen),
        metrics_port=number("ERP_METRICS_PORT", 8001, 65535),
        pool_size=number("ERP_POOL_SIZE", 10, 1000),
    )
    config.password()
    if config.port == config.metrics_port:
        raise ErpError(f"ERP_PORT and ERP_METRICS_PORT are both {config.port}: the metrics have a port of their own")
    return config
