"""What pyinfra runs round a restore: `--data phase=prepare` readies a fresh host, `--data phase=stop` ends writers."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyinfra import host, inventory
from pyinfra.api.exceptions import PyinfraError

from deploy import operations
from deploy.context import belonging

# What holds sessions that write, the one that depends on the other first.
_WRITERS = ("erp_load", "erp", "tasks", "migrations")

plan, parts, _ = belonging(host, inventory)

if host.data.phase == "prepare" and plan.here("database"):
    if "backup" not in parts:
        raise PyinfraError("backup.mode is `off`: there is no place to restore from")
    known = operations.report()["components"]
    for name in host.loop(["postgresql", "backup"]):
        # Where its deploy has not finished: packages and files alone, as there is no database to start or to enroll.
        if known.get(name, {"digest": None})["digest"] is None:
            bare = replace(parts[name], units=(), swapped=(), after=(), ready=(), probes={})
            operations.component(name=f"{name}, not started", wanted=bare)

if host.data.phase == "stop":
    applied = operations.report()["components"]
    units = [unit.name for name in _WRITERS if name in parts and name in applied for unit in parts[name].units]
    if units:
        operations.stop(name=f"stop what writes: {', '.join(units)}", units=units)
