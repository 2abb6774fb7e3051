"""Read-only access to the ERP's database."""

import contextlib
from collections.abc import Iterator

import psycopg

from erp_tasks.config import Config


@contextlib.contextmanager
def snapshot(settings: Config) -> Iterator[psycopg.Connection]:
    """A connection whose one transaction reads a single state of the data, however long it takes."""
    with psycopg.connect(
        settings.database,
        password=settings.database_password(),
        application_name="erp_tasks",
        connect_timeout=10,
    ) as connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield connection
