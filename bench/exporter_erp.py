"""The demo ERP part of `bench exporter`: what our exporter takes by default, an hour of it in a minute.

The interval of scrapes and those of the background are all divided by 60, so that the server's CPU time of a minute is
that of an hour at 30 s between scrapes. Connecting is in it, and what the server does by itself.
"""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from bench import exporter_sides as sides
from bench.environment import ROOT
from bench.exporter_process import ServerWatch, started
from bench.report import say
from lab.postgresql import PostgresServer, free_port
from lab.system import wait_until

_DATABASE = "erp"
_FASTER = 60
_SCRAPE_SECONDS = 30 / _FASTER
_LOAD_SECONDS = 8
_UNITS = {"s": 1, "m": 60, "h": 3600}


def build(server: PostgresServer) -> None:
    """Make the demo ERP's database with its migrations, and have its queries asked for some seconds."""
    say("the demo ERP: tables, rows, migrations, some requests")
    server.execute(f"CREATE DATABASE {_DATABASE}")
    server.execute("CREATE EXTENSION pg_stat_statements", _DATABASE)
    dsn = server.dsn(_DATABASE)
    _python("erp", "generate", "--dsn", dsn, "--size", "small")
    _python("messwarte_migrate", "apply", "--dsn", dsn, "--directory", str(ROOT / "sql_migrations/erp"))
    with _erp(dsn) as url:
        _python("erp", "load", "--url", url, "--rate", "20", "--duration", str(_LOAD_SECONDS))
    server.execute("VACUUM (ANALYZE)", _DATABASE)
    server.execute("CHECKPOINT")


def hour(server: PostgresServer, watch: ServerWatch, minutes: float) -> dict[str, Any]:
    """Return our figures with all collectors on, as they are by default; so many minutes of the clock, each an hour."""
    place = sides.Place(server, _DATABASE, "bench_erp", free_port(), 0)
    server.execute(f"CREATE ROLE {place.role} LOGIN")
    faster = {
        name: {"every": f"{_seconds(str(declared['every'])) * 1000 / _FASTER:.0f}ms"}
        for name, declared in sides.collectors().items()
        if "every" in declared
    }
    command = sides.ours(place, faster)
    granting = [*command[0][:3], "grants", "--config", command[0][-1]]
    grants = subprocess.run(granting, env=command[1], capture_output=True, text=True, check=True).stdout
    with psycopg.connect(server.dsn(_DATABASE), autocommit=True) as connection:
        connection.execute(grants.encode())
    with started(sides.OURS, command, place.port, server.directory) as exporter:
        wait_until(lambda: 'reason="pending"' not in exporter.scrape().text, "everything was read once", 60)
        before, due = watch.cpu_seconds(), time.monotonic()
        answers = []
        for _ in range(round(minutes * 60 / _SCRAPE_SECONDS)):
            time.sleep(max(0.0, due - time.monotonic()))
            answers.append(exporter.scrape())
            due += _SCRAPE_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))
        seconds = (watch.cpu_seconds() - before) / minutes
        last = answers[-1]
        failed = re.findall(r"(?m)^pg_scrape_collector_success\{(.*)\} 0$", last.text)
        skipped = re.findall(r"(?m)^pg_scrape_collector_skipped\{(.*)\} 1$", last.text)
        return {
            "series": last.series(),
            "server seconds an hour": round(seconds, 2),
            "MB": round(exporter.peak_bytes() / 1e6, 1),
            "p50 ms": round(sorted(one.seconds for one in answers)[len(answers) // 2] * 1000, 1),
            "skipped": skipped,
            "failed": [one for one in failed if not any(other.startswith(f"{one},") for other in skipped)],
        }


def _seconds(duration: str) -> float:
    return float(duration.rstrip("smh")) * _UNITS.get(duration[-1], 1)


def _environment() -> dict[str, str]:
    rooms = (ROOT, ROOT / "exporters/erp_metrics/src", ROOT / "sql_migrations/runner/src")
    return os.environ | {"PYTHONPATH": ":".join(map(str, rooms))}


def _python(module: str, *arguments: str) -> None:
    command = [sys.executable, "-P", "-m", module, *arguments]
    done = subprocess.run(command, env=_environment(), cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[3:5])} ended with {done.returncode}: {done.stderr[-2000:]}")


@contextlib.contextmanager
def _erp(dsn: str) -> Iterator[str]:
    """The ERP's server; its URL."""
    port, metrics = free_port(), free_port()
    settings = {"ERP_DATABASE": dsn, "ERP_PORT": str(port), "ERP_METRICS_PORT": str(metrics)}
    command = [sys.executable, "-P", "-m", "erp", "serve"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=_environment() | settings, cwd="/", stdout=quiet, stderr=quiet) as process:
        try:
            address = Path("/proc/net/tcp")
            wait_until(lambda: f"0100007F:{port:04X} 00000000:0000 0A" in address.read_text(), "the ERP listens", 60)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
