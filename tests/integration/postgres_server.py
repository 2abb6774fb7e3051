"""PostgreSQL servers of the tests, and waiting."""

import time
from collections.abc import Callable

import pytest

from lab.postgresql import Installation, PostgresServer, free_port, postgres_server, server_directory

__all__ = ["Installation", "PostgresServer", "free_port", "postgres_server", "server_directory", "wait_until"]


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 30) -> None:
    """Poll a condition until it holds; fail with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} within {timeout:g} s")
        time.sleep(0.05)
