"""The exporter's configuration: one strict YAML file."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, Field, model_validator

from pgstat_exporter import content
from pgstat_exporter.content import Collector
from pgstat_exporter.strict import Duration, Problem, Strict, read, unknown


class CollectorSettings(Strict):
    """What can be set for a collector; what is left out is as its declaration says."""

    enabled: bool = True
    every: Duration | None = None
    statement_timeout: Duration | None = None
    lock_timeout: Duration | None = None
    top: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_rows: Annotated[int, Field(ge=1, le=100_000)] | None = None
    query_text: bool | None = None


class Databases(Strict):
    """Which databases of a server are measured one by one; shell patterns."""

    include: tuple[str, ...] = Field(default=("*",), strict=False)
    exclude: tuple[str, ...] = Field(default=(), strict=False)

    def wanted(self, name: str) -> bool:
        """Return whether a database is measured."""
        return any(fnmatchcase(name, one) for one in self.include) and not any(
            fnmatchcase(name, one) for one in self.exclude
        )


def _conninfo(value: str) -> str:
    try:
        parameters = conninfo_to_dict(value)
    except psycopg.ProgrammingError:
        # libpq's message may repeat a part of the string, and with it a secret.
        raise ValueError("must be a libpq connection string such as host=/run/postgresql dbname=erp") from None
    if "password" in parameters:
        raise ValueError("holds a password; put it into a file of its own and name that in password_file")
    return value


def _absolute(value: str) -> str:
    if not Path(value).is_absolute():
        raise ValueError(f"must be an absolute path, not {value!r}")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"must be an IP address such as 127.0.0.1 or ::1, not {value!r}") from None


Dsn = Annotated[str, AfterValidator(_conninfo)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class Target(Strict):
    """A server that is measured."""

    dsn: Dsn
    password_file: AbsolutePath | None = None
    databases: Databases = Databases()


class Config(Strict):
    """The settings of the file."""

    # The server of /metrics.
    dsn: Dsn | None = None
    password_file: AbsolutePath | None = None
    databases: Databases = Databases()
    # The servers of /probe?target=NAME.
    targets: dict[str, Target] = Field(default_factory=dict)
    listen: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 9187
    # TLS and passwords, in the format of Prometheus's exporters.
    web_config: AbsolutePath | None = None
    # Where the scraper does not say how long it waits.
    scrape_timeout: Duration = 10.0
    collectors: dict[str, CollectorSettings] = Field(default_factory=dict)
    # With further collectors, each a declaration beside its SQL.
    collector_folders: tuple[AbsolutePath, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _some_server(self) -> Self:
        if self.dsn is None and not self.targets:
            raise ValueError("dsn is missing; name a server there, or several under targets")
        if self.dsn is None and self.password_file is not None:
            raise ValueError("password_file belongs to a dsn, which is missing")
        return self

    def own(self) -> Target | None:
        """Return the server of /metrics."""
        if self.dsn is None:
            return None
        return Target(dsn=self.dsn, password_file=self.password_file, databases=self.databases)


@dataclass(frozen=True)
class Enabled:
    """A collector with its settings applied; times in seconds."""

    collector: Collector
    every: float | None
    statement_timeout: float
    lock_timeout: float
    max_rows: int
    top: int | None
    query_text: bool

    @property
    def name(self) -> str:
        """The collector's name."""
        return self.collector.name


def load(path: Path) -> Config:
    """Return the configuration, or raise Problem naming file, setting and what would be right."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{path}: cannot be read: {error}") from None
    return read(Config, text, str(path))


def collectors(config: Config) -> dict[str, Collector]:
    """Return the collectors that there are for a configuration, or raise Problem."""
    return content.load(*map(Path, config.collector_folders))


def enabled(config: Config, collectors: Mapping[str, Collector], where: str) -> list[Enabled]:
    """Return the collectors that are on, or raise Problem for settings that fit none."""
    problems = []
    for name, settings in config.collectors.items():
        if name not in collectors:
            problems.append(f"{where}: collectors.{name}: no such collector; {unknown(name, collectors)}")
            continue
        declaration = collectors[name].declaration
        offers = {"top": declaration.top, "query_text": declaration.texts, "every": declaration.every}
        for option, offered in offers.items():
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
        settings.every or declaration.every,
        settings.statement_timeout or declaration.statement_timeout,
        settings.lock_timeout or declaration.lock_timeout,
        settings.max_rows or declaration.max_rows,
        settings.top or declaration.top,
        settings.query_text is not False,
    )
