"""Backups to a folder of the database host, as a share would be: nothing is begun anew where something is missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hosts.conftest import Stack, lab_of

_OFF = ("redis", "prometheus", "alertmanager", "grafana", "erp", "tasks")
_DRILL = "messwarte-restore-drill.service"


@pytest.fixture
def alone() -> Iterator[Stack]:
    """A host for PostgreSQL and nothing else."""
    with lab_of("test-backup-folder") as lab:
        yield Stack(lab.name, lab.up(["database"]))


def _settings(path: Path, **backup: Any) -> Path:
    parts = {name: {"mode": "off"} for name in _OFF}
    backup = {"mode": "deployed", "folder": "/mnt/share", "encryption": False, **backup}
    path.write_text(yaml.safe_dump({"postgresql": {"memory": "1GB"}, "backup": backup, **parts}))
    return path


def test_share_that_is_not_mounted_or_empty_is_not_made_up_for(alone: Stack, tmp_path: Path) -> None:
    """Neither at the first deploy nor later; a new name begins anew, and leaves the old series as it is."""
    settings, machine = _settings(tmp_path / "settings.yml"), alone.machine
    refused = alone.deploy(settings)
    assert refused.status != 0
    assert "backup.folder: /mnt/share is not there, or user postgres may not write to it" in refused.said
    machine.succeed("mkdir -p /mnt/share && mount -t tmpfs -o size=1g tmpfs /mnt/share && chown postgres: /mnt/share")
    run = alone.deploy(settings)
    assert (run.status, run.failed) == (0, {}), run.said
    machine.succeed(f"systemctl start {_DRILL}")
    assert "backup.manifest" in machine.succeed("ls -R /mnt/share/backup/main")
    assert alone.deploy(settings).changed == {}

    machine.succeed("mv /mnt/share/* /root/ && echo >> /etc/messwarte/backup/current/release")
    refused = alone.deploy(settings)
    assert refused.status != 0
    assert "/mnt/share has nothing of `main` any more, where this database had backups: is it mounted" in refused.said
    assert machine.succeed("ls -A /mnt/share") == "", "nothing was begun"

    renamed = _settings(tmp_path / "renamed.yml", name="second")
    run = alone.deploy(renamed)
    assert (run.status, run.failed) == (0, {}), run.said
    machine.succeed(f"systemctl start {_DRILL}", "ls -d /mnt/share/backup/second")


def test_place_of_before_gets_a_new_backup_which_bridges_what_it_missed(alone: Stack, tmp_path: Path) -> None:
    """Away from a place and back: without a new backup there, no drill could get over the WAL that it has not got."""
    machine = alone.machine
    machine.succeed("install -d -m 777 /mnt/share /mnt/other")
    for folder in ("/mnt/share", "/mnt/other", "/mnt/share"):
        run = alone.deploy(_settings(tmp_path / "settings.yml", folder=folder))
        assert (run.status, run.failed) == (0, {}), run.said
        machine.succeed(f"systemctl start {_DRILL}")
        machine.succeed(
            "runuser -u postgres -- psql -c 'CREATE TABLE IF NOT EXISTS one ()' -c 'SELECT pg_switch_wal()'"
        )
    fulls = machine.succeed("ls -d /mnt/share/backup/main/*F").split()
    assert len(fulls) == 2
    state = machine.succeed("cat /var/lib/messwarte-backup/metrics.prom")
    assert "messwarte_restore_drill_last_failed 0" in state
    assert "messwarte_restore_drill_failures_total 0" in state
