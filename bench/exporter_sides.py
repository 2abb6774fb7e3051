"""The sides of `bench exporter`: how each is installed, configured and started, and what its facts are called.

All of them read one database. What is slow (the facts of tables, indices, files, ages) is read by postgres_exporter at
every scrape, as it does everything; by the others at an interval. What is fast is read at every scrape; by
sql_exporter, which knows intervals only, at one of its own.
"""

import ctypes.util
import functools
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.environment import ROOT, programs
from bench.report import say
from lab.base import base
from lab.base import recipe as base_recipe
from lab.postgresql import Installation, PostgresServer, install
from lab.trees import Tree, copy

TREE_PACKAGES = ("postgresql-17", "prometheus-postgres-exporter", "prometheus-sql-exporter")
LOCK = ROOT / "bench/query_exporter.lock"
_OURS = ROOT / "exporters/pgstat_exporter"
# Those of ours that hold the facts; the rest is off.
_COLLECTORS = (
    *("activity", "checkpointer", "database", "database_size", "files", "indexes", "locks", "server"),
    *("tables", "xid_age"),
)
# Beside those that postgres_exporter turns on itself.
_POSTGRES_EXPORTER = ("database_wraparound", "postmaster", "stat_checkpointer", "statio_user_indexes")
SQL_EXPORTER_FAST_SECONDS = 1


@dataclass(frozen=True)
class Group:
    """Facts that one query yields; each has its names in pgstat_exporter and in postgres_exporter."""

    name: str
    of: str
    labels: Sequence[str]
    sql: str
    facts: Mapping[str, tuple[str, str]]
    slow: bool = False


@functools.cache
def groups() -> Sequence[Group]:
    """Return the declared facts."""
    declared = yaml.safe_load((ROOT / "bench/exporter_facts.yml").read_text())
    return [Group(name, **one) for name, one in declared.items()]


@dataclass(frozen=True)
class Place:
    """What a side measures, where it listens, and the seconds between its readings of what is slow."""

    server: PostgresServer
    database: str
    role: str
    port: int
    interval: int
    tree: Path | None = None

    def url(self, scheme: str) -> str:
        """Return the database's URL."""
        return f"{scheme}://{self.role}@127.0.0.1:{self.server.port}/{self.database}"

    def write(self, name: str, content: object) -> str:
        """Write a configuration file beside the server's data, which a tree's program sees too."""
        path = self.server.directory / f"{self.role}-{name}"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return str(path)

    def peer(self, program: str, *arguments: str) -> list[str]:
        """Return the command of a program in the tree."""
        return Installation(Path("/usr/bin"), self.tree).command(self.server.directory, program, *arguments)


Command = tuple[list[str], dict[str, str]]


@dataclass(frozen=True)
class Side:
    """An exporter: its command at a place, and the metric of a fact, with the label `col` where it has one."""

    name: str
    role: str
    command: Callable[[Place], Command]
    series: Callable[[Group, str], tuple[str, str]]
    # Whether what is slow comes from the last reading.
    cached: bool = True
    # Seconds between readings of what is fast; 0: at each scrape.
    fast: int = 0
    # The sample that tells when the tables were read, where readings that came due in its absence are left out.
    read_at: str = ""


def tree() -> Tree:
    """Return the tree of Debian 13 with PostgreSQL 17 and the peers."""

    def make(target: Path) -> None:
        with base(say) as debian:
            copy(debian, target)
        install(target, *TREE_PACKAGES)

    recipe = f"1 {' '.join(TREE_PACKAGES)} {base_recipe()}"
    return Tree("bench-exporter", "for the benchmark; a minute or two", recipe, make)


def ours(place: Place, collectors: Mapping[str, object], **settings: object) -> Command:
    """Return the command of pgstat_exporter as hosts run it: on psycopg without its C part."""
    if not ctypes.util.find_library("pq"):
        raise FileNotFoundError("psycopg's Python implementation wants libpq: apt-get install libpq5")
    dsn = f"host=127.0.0.1 port={place.server.port} user={place.role} dbname={place.database}"
    wanted = {"dsn": dsn, "port": place.port, "collectors": dict(collectors), **settings}
    python = programs(_OURS / "requirements.lock") / "python"
    environment = os.environ | {"PYTHONPATH": str(_OURS / "src"), "PSYCOPG_IMPL": "python"}
    return [str(python), "-m", "pgstat_exporter", "serve", "--config", place.write("ours.yml", wanted)], environment


def collectors() -> dict[str, Mapping[str, object]]:
    """Return our collectors' declarations."""
    found = sorted((_OURS / "src/pgstat_exporter/collectors").glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text()) for path in found}


def _ours(place: Place) -> Command:
    settings: dict[str, dict[str, object]] = {}
    for name, declaration in collectors().items():
        settings[name] = {"enabled": name in _COLLECTORS}
        if name in _COLLECTORS and "every" in declaration:
            # All tables and indices, as the peers; ours is made for the first of them.
            settings[name] |= {"every": place.interval} | ({"top": 100_000} if "top" in declaration else {})
    return ours(place, settings, databases={"include": [place.database]})


def _postgres_exporter(place: Place) -> Command:
    options = [*(f"--collector.{name}" for name in _POSTGRES_EXPORTER), "--disable-settings-metrics"]
    command = place.peer("prometheus-postgres-exporter", f"--web.listen-address=127.0.0.1:{place.port}", *options)
    url = f"{place.url('postgres')}?sslmode=disable"
    return command, {"PATH": os.environ["PATH"], "DATA_SOURCE_NAME": url}


def _sql_exporter(place: Place) -> Command:
    jobs = [
        {
            "name": name,
            "interval": f"{seconds}s",
            "connections": [f"{place.url('postgres')}?sslmode=disable"],
            "queries": [
                {
                    "name": one.name,
                    "help": one.name,
                    "labels": list(one.labels),
                    "values": [*one.facts],
                    "query": one.sql,
                }
                for one in groups()
                if one.slow == slow
            ],
        }
        for name, slow, seconds in (("slow", True, place.interval), ("fast", False, SQL_EXPORTER_FAST_SECONDS))
    ]
    config = place.write("sql.yml", {"jobs": jobs})
    listen = f"-web.listen-address=127.0.0.1:{place.port}"
    environment = {"PATH": os.environ["PATH"], "LOGLEVEL": "error"}
    return place.peer("prometheus-sql-exporter", "-config.file", config, listen), environment


def _query_exporter(place: Place) -> Command:
    dsn = place.url("postgresql+psycopg")
    config = {
        # A connection for each tier: what is fast does not wait for what is slow.
        "databases": {name: {"dsn": dsn} for name in ("slow", "fast")},
        "metrics": {
            f"{one.name}_{fact}": {"type": "gauge"} | ({"labels": list(one.labels)} if one.labels else {})
            for one in groups()
            for fact in one.facts
        },
        "queries": {
            one.name: {
                "databases": ["slow" if one.slow else "fast"],
                "metrics": [f"{one.name}_{fact}" for fact in one.facts],
                "sql": _renamed(one),
            }
            | ({"interval": place.interval} if one.slow else {})
            for one in groups()
        },
    }
    command = [str(programs(LOCK) / "query-exporter"), "--host", "127.0.0.1", "--port", str(place.port)]
    return [*command, "--log-level", "error", "--config", place.write("query.yml", config)], dict(os.environ)


def _renamed(group: Group) -> str:
    """Return a group's SQL with columns named like query-exporter's metrics."""
    columns = ", ".join([*group.labels, *(f"{fact} AS {group.name}_{fact}" for fact in group.facts)])
    return f"SELECT {columns} FROM ({group.sql}) AS facts"  # noqa: S608 - SQL of constants


OURS = Side("pgstat_exporter", "bench_ours", _ours, lambda group, fact: (group.facts[fact][0], ""))
POSTGRES_EXPORTER = Side(
    "postgres_exporter", "bench_pe", _postgres_exporter, lambda group, fact: (group.facts[fact][1], ""), cached=False
)
SQL_EXPORTER = Side(
    "sql_exporter",
    "bench_se",
    _sql_exporter,
    lambda group, fact: (f"sql_{group.name}", fact),
    fast=SQL_EXPORTER_FAST_SECONDS,
)
QUERY_EXPORTER = Side(
    "query-exporter",
    "bench_qe",
    _query_exporter,
    lambda group, fact: (f"{group.name}_{fact}", ""),
    read_at='query_timestamp{database="slow",query="tables"}',
)
SIDES = (OURS, POSTGRES_EXPORTER, SQL_EXPORTER, QUERY_EXPORTER)


def versions(found: Path) -> dict[str, str]:
    """Return the versions of what is compared."""
    shown = ["chroot", str(found), "dpkg-query", "-W", "-f=${Package} ${Version}\n", *TREE_PACKAGES]
    debian = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.splitlines()
    pip = [str(programs(LOCK) / "python"), "-m", "pip", "--disable-pip-version-check", "list", "--format=json"]
    listed = json.loads(subprocess.run(pip, capture_output=True, text=True, check=True).stdout)
    python = {one["name"]: one["version"] for one in listed if one["name"] in {"query-exporter", "psycopg"}}
    return dict(line.split() for line in debian) | python
