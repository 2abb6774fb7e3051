"""Options, and the rule by which a test gets the programs that it needs."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from lab.system import INSTALLING, locked

_REFUSE_START = Path("/usr/sbin/policy-rc.d")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --long."""
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and skip long ones unless they were asked for."""
    for item in items:
        for tier in ("integration", "hosts"):
            if tier in item.path.parent.parts:
                item.add_marker(tier)
        if "long" in item.keywords and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --long"))


class _Halves(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """For two processes: all hosts tests to one, as they share a lab; a file of the others at a time to who is free."""

    def _split_scope(self, nodeid: str) -> str:
        return "hosts" if nodeid.startswith("tests/hosts/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Choose who runs which tests where there are several processes."""
    return _Halves(config, log)


def _install(package: str) -> str | None:
    """Install a Debian package without starting its daemon; return what went wrong."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"run: sudo apt-get install {package}"
    print(f"\ninstalling Debian's {package} for the tests", flush=True)  # noqa: T201
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with locked(INSTALLING), _no_daemon_starts():
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
        ):
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if run.returncode:
                return f"{' '.join(command)} failed: {run.stderr.strip()[-300:]}"
    return None


@contextlib.contextmanager
def _no_daemon_starts() -> Iterator[None]:
    """Keep packages that are installed meanwhile from starting daemons."""
    if _REFUSE_START.exists():
        yield
        return
    _REFUSE_START.write_text("#!/bin/sh\nexit 101\n")
    _REFUSE_START.chmod(0o755)
    try:
        yield
    finally:
        _REFUSE_START.unlink()


def find_program(name: str) -> str | None:
    """Return the path of a program, PostgreSQL's server programs included (Debian keeps them off PATH)."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found:
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
    return str(versions[-1]) if versions else None


@pytest.fixture(scope="session")
def need_program() -> Callable[[str, str], str]:
    """A function (program, Debian package) -> path: installs as root, otherwise skips, saying why."""

    def need(name: str, package: str) -> str:
        found = find_program(name)
        trouble = None if found else _install(package)
        found = found or find_program(name)
        if not found:
            pytest.skip(f"{name} is missing: {trouble or f'{package} does not hold it'}")
        return found

    return need
