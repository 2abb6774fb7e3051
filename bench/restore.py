"""What a disaster costs: a restore to a second before it, a lost host brought back, and what of it is lost.

Two hosts: the stack under load, and its backups. Hashes and counts are taken independently of the restore.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from bench.report import Target, as_json, say
from lab import Lab, Machine
from lab.system import wait_until
from proof import disturbances, recovery
from proof.access import load_options

ROOT = Path(__file__).resolve().parent.parent
# The default; a WAL file has to be brought away on top of it.
_ARCHIVE_SECONDS = 60
_BRINGING_SECONDS = 15
_STATE = "/var/lib/messwarte-backup"
_DRILLED = f"test -f {_STATE}/metrics.prom && grep -q ^messwarte_restore_drill_last_success {_STATE}/metrics.prom"


class Stack:
    """A lab whose database is backed up to its other host."""

    def __init__(self, lab: Lab, size: str, folder: Path) -> None:
        """Boot and deploy, until the first backup has been restored by a drill."""
        self.lab = lab
        self.machines = lab.up(["database", "backup"], say)
        settings = yaml.safe_load((ROOT / "inventories/lab.yml").read_text())
        settings["backup"] = {"mode": "deployed", "archive_timeout": f"{_ARCHIVE_SECONDS}s"}
        settings["erp"] |= {"demo_load": 0, "demo_size": size}
        self.settings = folder / "settings.yml"
        self.settings.write_text(yaml.safe_dump(settings))
        self.verb("deploy")
        self.database.wait_until_succeeds(_DRILLED, 600)

    @property
    def database(self) -> Machine:
        """The host of the database."""
        return self.machines["database"]

    def load(self) -> AbstractContextManager[None]:
        """Postings meanwhile."""
        erp = load_options(ROOT / ".lab" / self.lab.name, f"https://{self.database.address}:8000")
        return disturbances.requests(erp, "posting", 8, 3600)

    def verb(self, *arguments: str) -> float:
        """Run `./messwarte`; return the seconds it took."""
        environment = os.environ | {"MESSWARTE_LAB": self.lab.name, "MESSWARTE_SETTINGS": str(self.settings)}
        begun = time.monotonic()
        say(f"$ ./messwarte {' '.join(arguments)}")
        subprocess.run([ROOT / "messwarte", *arguments], env=environment, stdout=sys.stderr, check=True)
        return round(time.monotonic() - begun, 1)

    def restored(self, to: str) -> dict[str, Any]:
        """Restore; return the seconds of the verb, and what the host noted."""
        seconds = self.verb("restore", "--to", to, "--yes")
        noted: dict[str, Any] = json.loads(self.database.succeed(f"cat {_STATE}/restore.json"))
        parts = {
            name: noted[key] for name, key in (("fetching", "seconds_fetching"), ("replaying", "seconds_replaying"))
        }
        return {"verb": seconds, "restore": noted["seconds"], **parts}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark as root; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="bench restore", description=__doc__)
    parser.add_argument("--size", choices=["small", "medium", "large"], default="medium", help="demo data (medium)")
    parser.add_argument("--lab", default="bench-restore", help="name of the lab (bench-restore)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    lab = Lab(options.lab, ROOT / ".lab")
    lab.down(say)
    with tempfile.TemporaryDirectory(prefix="messwarte-bench-") as folder:
        try:
            stack = Stack(lab, options.size, Path(folder))
            figures: dict[str, Any] = {"size": options.size, **_backup(stack)}
            figures["disaster"] = _disaster(stack)
            figures["lost host"] = _lost_host(stack)
            version = stack.database.succeed("pgbackrest version").split()[-1]
        finally:
            lab.down(say)
    targets = _targets(figures)
    if options.json:
        print(as_json({"pgbackrest": version}, figures, targets))  # noqa: T201
    else:
        print(json.dumps(figures, indent=2), *targets, sep="\n")  # noqa: T201
    return 0 if all(target.ok for target in targets) else 1


def _backup(stack: Stack) -> dict[str, Any]:
    """A full backup, a differential one and a drill, all under load."""
    with stack.load():
        for kind in ("full", "differential"):
            stack.database.succeed(f"systemctl start messwarte-backup-{kind}.service", timeout=1800)
        stack.database.succeed("systemctl start messwarte-restore-drill.service", timeout=1800)
    state = json.loads(stack.database.succeed(f"cat {_STATE}/state.json"))
    full = state["backups"]["full"]
    return {
        "database MB": full["last_size_bytes"] // 2**20,
        "full backup MB": full["last_stored_bytes"] // 2**20,
        "full backup seconds": full["last_duration_seconds"],
        "differential backup seconds": state["backups"]["differential"]["last_duration_seconds"],
        "drill seconds": state["drill"]["last_duration_seconds"],
    }


def _disaster(stack: Stack) -> dict[str, Any]:
    with stack.load():
        before = recovery.hashes(stack.database)
        wait_until(lambda: recovery.hashes(stack.database) != before, "postings change tables", 60)
        wanted, moment = recovery.disaster(stack.database)
    result = stack.restored(moment.isoformat(sep=" "))
    found = recovery.hashes(stack.database)
    return result | {
        "tables": len(wanted),
        "tables that differ": sum(found.get(name) != wanted[name] for name in wanted),
    }


def _lost_host(stack: Stack) -> dict[str, Any]:
    with stack.load(), recovery.ticking(stack.database) as ticks:
        # Past the first switch, and on the way to the next.
        time.sleep(_ARCHIVE_SECONDS * 1.8)
        stack.database.crash()
        lost = time.time()
    last = recovery.last_archived(stack.machines["backup"])
    archived = max(tick.number for tick in ticks.seen if tick.wal_file <= last)
    stack.lab.replace("database", say)
    result = stack.restored("latest")
    number = recovery.last_tick(stack.database)
    age = lost - next(tick.at for tick in ticks.seen if tick.number == number)
    return result | {
        "last archived WAL": last,
        "seconds of changes that are lost": round(age, 1),
        "archived rows that are missing": max(0, archived - number),
    }


def _targets(figures: dict[str, Any]) -> list[Target]:
    disaster, lost = figures["disaster"], figures["lost host"]
    bound = _ARCHIVE_SECONDS + _BRINGING_SECONDS
    return [
        Target("tables that differ after the restore", disaster["tables that differ"], 0),
        Target("archived rows that are missing after the loss", lost["archived rows that are missing"], 0),
        Target("seconds of changes lost with the host", lost["seconds of changes that are lost"], bound),
        Target("seconds of `restore` after a disaster", disaster["verb"], 300),
        Target("seconds of `restore` on a fresh host", lost["verb"], 600),
    ]


if __name__ == "__main__":
    sys.exit(main())
