"""A database of its own on a server of each version, and what an exporter with the least rights says of it."""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from pgstat_exporter import content
from tests.integration.pgstat_exporter_process import Answer, running, write_config
from tests.integration.postgres_server import PostgresServer


@dataclass
class Subject:
    """A database that collectors are tried on."""

    server: PostgresServer
    name: str
    folder: Path

    @property
    def major(self) -> int:
        """The server's major version, from the file that initdb wrote."""
        return int((self.server.data / "PG_VERSION").read_text())

    def session(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a superuser's session."""
        return psycopg.connect(self.server.dsn(self.name), autocommit=True)

    def do(self, *statements: str) -> None:
        """Run statements in one session, and have the counters of each passed on."""
        with self.session() as session:
            for statement in statements:
                session.execute(statement.encode())
                session.execute("SELECT pg_stat_force_next_flush()")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what a superuser is told."""
        return self.server.execute(sql, self.name)

    def value(self, sql: str) -> Any:
        """Return the one value of a query."""
        ((found,),) = self.rows(sql)
        return found

    @contextlib.contextmanager
    def role(self, *roles: str, grants: tuple[str, ...] = ()) -> Iterator[str]:
        """A role that is a member of these, has these grants, and nothing else."""
        name = f"test_{secrets.token_hex(4)}"
        self.do(f"CREATE ROLE {name} LOGIN", *(f"GRANT {one} TO {name}" for one in (*roles, *grants)))
        try:
            yield name
        finally:
            self.do(f"DROP OWNED BY {name}", f"DROP ROLE {name}")

    def scrape(self, user: str, *collectors: str, top: int | None = None, **settings: object) -> Answer:
        """Return what an exporter says that runs only these collectors, with these settings for each."""
        wanted = {
            name: {"enabled": name in collectors}
            | (settings if name in collectors else {})
            | ({"top": top} if top and one.declaration.top else {})
            for name, one in content.load().items()
        }
        databases = {"include": [self.name]}
        dsn = self.server.dsn(self.name, user)
        with running(write_config(self.folder, dsn, databases=databases, collectors=wanted)) as exporter:
            return exporter.scrape(timeout=70, header=60)

    def ask(self, *collectors: str, grants: tuple[str, ...] = (), top: int | None = None, **settings: object) -> Answer:
        """Scrape once with exactly the rights that the collectors declare; all of them must succeed."""
        declared = {content.load()[name].declaration.role for name in collectors}
        with self.role(*sorted(filter(None, declared)), grants=grants) as user:
            answer = self.scrape(user, *collectors, top=top, **settings)
        assert answer.success() == dict.fromkeys(collectors, 1.0), answer.body
        return answer

    def shown(self, answer: Answer, name: str, *labels: str) -> dict[Any, float]:
        """Return a metric's values of this database by one label, or by several in a tuple."""
        found = {}
        for (sample, pairs), value in answer.items():
            has = dict(pairs)
            if sample == name and has.pop("datname") == self.name:
                found[tuple(has[label] for label in labels) if len(labels) > 1 else has[labels[0]]] = value
        return found


@contextlib.contextmanager
def fresh(server: PostgresServer, folder: Path) -> Iterator[Subject]:
    """A fresh database; dropped afterwards."""
    name = f"test_{secrets.token_hex(4)}"
    server.execute(f"CREATE DATABASE {name}")
    yield Subject(server, name, folder)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
