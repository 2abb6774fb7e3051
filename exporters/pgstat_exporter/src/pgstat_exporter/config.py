"""The exporter's configuration: one strict YAML file."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, field_validator

from pgstat_exporter.content import Collector
from pgstat_exporter.strict import Duration, Problem, Strict, read, unknown


class CollectorSettings(Strict):
    """What can be set for a collector; what is left out is as its declaration says."""

    enabled: bool = True
    statement_timeout: Duration | None = None
    lock_timeout: Duration | None = None
    top: Annotated[int, Field(ge=1, le=1000)] | None = None
    query_text: bool | None = None


class Config(Strict):
    """The settings of the file."""

    dsn: str
    password_file: str | None = None
    listen: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 9187
    # Where the scraper does not say how long it waits.
    scrape_timeout: Duration = 10.0
    collectors: dict[str, CollectorSettings] = Field(default_factory=dict)

    @field_validator("dsn")
    @classmethod
    def _conninfo(cls, value: str) -> str:
        try:
            parameters = conninfo_to_dict(value)
        except psycopg.ProgrammingError:
            # libpq's message may repeat a part of the string, and with it a secret.
            raise ValueError("must be a libpq connection string such as host=/run/postgresql dbname=erp") from None
        if "password" in parameters:
            raise ValueError("holds a password; put it into a file of its own and name that in password_file")
        return value

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise ValueError(f"must be an IP address such as 127.0.0.1 or ::1, not {value!r}") from None

    @field_validator("password_file")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).is_absolute():
            raise ValueError(f"must be an absolute path, not {value!r}")
        return value


@dataclass(frozen=True)
class Enabled:
    """A collector with its settings applied; times in seconds."""

    collector: Collector
    statement_timeout: float
    lock_timeout: float
    top: int | None
    query_text: bool

    @property
    def name(self) -> str:
        """The collector's name."""
        return self.collector.name

    @property
    def row_limit(self) -> int:
        """The most rows that one query may export."""
        return self.top or self.collector.declaration.max_rows


def load(path: Path) -> Config:
    """Return the configuration, or raise Problem naming file, setting and what would be right."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{path}: cannot be read: {error}") from None
    return read(Config, text, str(path))


def enabled(config: Config, collectors: Mapping[str, Collector], where: str) -> list[Enabled]:
    """Return the collectors that are on, or raise Problem for settings that fit none."""
    problems = []
    for name, settings in config.collectors.items():
        if name not in collectors:
            problems.append(f"{where}: collectors.{name}: no such collector; {unknown(name, collectors)}")
            continue
        declaration = collectors[name].declaration
        for option, offered in (("top", declaration.top), ("query_text", declaration.texts)):
            if getattr(settings, option) is not None and offered is None:
                problems.append(f"{where}: collectors.{name}.{option}: this collector has no such setting")
    chosen = [
        _apply(collector, settings)
        for name, collector in collectors.items()
        if (settings := config.collectors.get(name, CollectorSettings())).enabled
    ]
    if not chosen:
        problems.append(f"{where}: collectors: every collector is off; leave at least one enabled")
    if problems:
        raise Problem("\n".join(problems))
    return chosen


def _apply(collector: Collector, settings: CollectorSettings) -> Enabled:
    declaration = collector.declaration
    return Enabled(
        collector,
        settings.statement_timeout or declaration.statement_timeout,
        settings.lock_timeout or declaration.lock_timeout,
        settings.top or declaration.top,
        settings.query_text is not False,
    )
