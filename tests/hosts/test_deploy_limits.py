"""What a host keeps is bounded, and what its services may do is confined; seen on a booted host under load."""

import re
from pathlib import Path

from tests.hosts.conftest import Stack

_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d erp"
_UNITS = "'messwarte-*.service' 'prometheus*.service' 'redis-*.service' 'grafana-*' 'postgresql@*' 'postfix*' 'nginx*'"
_MOST = 2.0
# What is exposed more than the rest, and why it has to be.
_EXCEPTIONS = {
    "postfix.service": (2.1, "its master is root: it starts each part as another user, and reaches into their folders"),
}


def test_every_unit_of_ours_is_confined(stack: Stack) -> None:
    """systemd's rating of the exposure, from 0 to 10, of every service that the deploy brought, while they run."""
    machine = stack.machine
    units = machine.succeed(f"systemctl list-units --plain --no-legend {_UNITS} | cut -d' ' -f1").split()
    services = {unit for unit in units if unit.endswith(".service")}
    assert {"postgresql@17-main.service", "postfix.service", "prometheus.service", "messwarte-erp.service"} <= services
    rated = machine.succeed(*(f"echo {unit} $(systemd-analyze security --no-pager {unit} | tail -1)" for unit in units))
    scores = {match[1]: float(match[2]) for match in re.finditer(r"^(\S+) .*: ([\d.]+) ", rated, re.MULTILINE)}
    assert scores.keys() == services
    bounds = {unit: _EXCEPTIONS.get(unit, (_MOST, ""))[0] for unit in services}
    assert {unit: score for unit, score in scores.items() if score > bounds[unit]} == {}
    # An exception that is none any more goes.
    assert all(scores[unit] > _MOST for unit in _EXCEPTIONS)


def test_confined_postgresql_does_all_it_did(stack: Stack) -> None:
    """Its compiler, parallel workers, the stack's depth, large sorts on disk, and Debian's own tools."""
    machine = stack.machine
    total = "EXPLAIN (ANALYZE) SELECT sum(menge) FROM lagerbewegung"
    assert "JIT:" in machine.succeed(f"{_PSQL} -c 'SET jit_above_cost = 0' -c '{total}'")
    eager = "-c 'SET parallel_setup_cost = 0' -c 'SET min_parallel_table_scan_size = 0' -c 'SET work_mem = 64'"
    query = "EXPLAIN (ANALYZE) SELECT * FROM lagerbewegung ORDER BY menge, id"
    assert re.search(r"Workers Launched: [1-9]", machine.succeed(f"{_PSQL} {eager} -c '{query}'"))
    assert machine.succeed(f"{_PSQL} -c 'SHOW max_stack_depth'") == "2MB\n"
    begun = "SELECT pg_postmaster_start_time()"
    before = machine.succeed(f"{_PSQL} -c '{begun}'")
    assert "online" in machine.succeed("pg_lsclusters --no-header")
    machine.succeed("pg_ctlcluster 17 main reload", "pg_ctlcluster 17 main status")
    assert machine.succeed(f"{_PSQL} -c '{begun}'") == before
    machine.succeed("pg_ctlcluster 17 main restart")
    assert machine.succeed(f"{_PSQL} -c '{begun}'") != before
    assert "database system was shut down" in machine.succeed("journalctl --unit postgresql@17-main --lines 20")
    # Stopped by its own user it stays down; killed it comes back (test_deploy_crash.py).
    machine.succeed("runuser -u postgres -- pg_ctlcluster 17 main stop")
    machine.wait_until_succeeds("systemctl is-active postgresql@17-main | grep -qx inactive")
    machine.succeed("pg_ctlcluster 17 main start", "systemctl is-active postgresql@17-main")
    machine.wait_until_succeeds("curl -fsS http://127.0.0.1:9187/metrics | grep -qx 'pg_up 1'")


def test_the_journal_ends_where_it_is_told_and_holds_postgresqls_log(mended: Stack, tmp_path: Path) -> None:
    """A service that logs four times the limit costs its older entries; PostgreSQL writes no file of its own."""
    machine = mended.machine
    run = mended.deploy(mended.settings(tmp_path, journal={"max_size": "32MB"}))
    assert (run.status, run.changed) == (0, {"journal": ["erp"]}), run.said
    noise = "for i in $(seq 128); do head -c 760000 /dev/urandom | base64 -w 40000; done"
    machine.succeed(f"{noise} | systemd-cat --identifier noise", timeout=300)
    machine.succeed("journalctl --sync")
    used = int(machine.succeed("du -sb /var/log/journal | cut -f1"))
    assert 8 * 2**20 < used < 40 * 2**20
    assert machine.succeed(f"{_PSQL} -c 'SHOW logging_collector'") == "off\n"
    assert machine.succeed("find /var/log/postgresql -type f -size +0") == ""
    machine.fail(f"{_PSQL} -c 'SELECT no_such_column'")
    machine.succeed("journalctl --unit postgresql@17-main --since -5min | grep -q 'no_such_column'")
