"""Backups: what is said of a database without them, and what their program on the host makes of its state."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.backup.host import recover, state
from deploy.backup.host.system import BackupError
from deploy.plan import HostFacts, Plan
from deploy.topology import GROUPS, Topology, node
from settings import Secrets, Settings

_FACTS = HostFacts(2**32, "3.13", "x86_64", "debian 13", True, 0, {}, (), [], False, False)


def _plan(folder: Path, **settings: Any) -> Plan:
    found = Settings.model_validate(settings)
    one = node("one", {"address": "127.0.0.1"}, [group for group in GROUPS if group != "backup"])
    return Plan(found, Secrets(folder / "secrets.yml"), Topology([one], found), one, _FACTS)


def test_database_without_backups_is_said_until_somebody_decides(tmp_path: Path) -> None:
    assert "PostgreSQL is deployed WITHOUT BACKUPS" in _plan(tmp_path).backup_missing
    assert _plan(tmp_path, backup={"mode": "off"}).backup_missing == ""
    assert _plan(tmp_path, backup={"mode": "deployed", "folder": "/mnt/backup"}).backup_missing == ""
    assert _plan(tmp_path, postgresql={"mode": "off"}).backup_missing == ""


@pytest.mark.parametrize(
    "remembered",
    [
        {},
        {
            "enrolled": {"at": 1.5},
            "backups": {"full": {"failed": 1, "failures": 2, "last_size_bytes": 3}, "differential": {"failed": 0}},
            "drill": {"failed": 0, "failures": 1, "last_duration_seconds": 4.2},
        },
    ],
)
def test_metrics_are_what_prometheus_reads(
    need_program: Callable[[str, str], str],
    remembered: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """promtool's own check, of a new host and of one with a past."""
    monkeypatch.setattr(state, "_NOTE", tmp_path / "state.json")
    monkeypatch.setattr(state, "METRICS", tmp_path / "metrics.prom")
    state.save(state.load() | remembered)
    text = (tmp_path / "metrics.prom").read_text()
    promtool = need_program("promtool", "prometheus")
    run = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    lines = set(text.splitlines())
    if remembered:
        assert 'messwarte_backup_last_failed{type="full"} 1' in lines
        assert "messwarte_restore_drill_last_duration_seconds 4.2" in lines
    else:
        assert "messwarte_restore_drill_failures_total 0" in lines
        assert not [line for line in lines if "enrolled" in line]


def test_state_that_was_cut_short_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_NOTE", tmp_path / "state.json")
    (tmp_path / "state.json").write_text('{"enrolled": {"at"')
    assert state.load()["enrolled"] is None


@pytest.mark.parametrize("to", ["yesterday", "2020-01-01 00:00:00", "2100-01-01 00:00:00+00", ""])
def test_moment_that_cannot_be_is_refused(to: str) -> None:
    with pytest.raises(BackupError):
        recover.target(to, None)


def test_moment_keeps_its_time_zone() -> None:
    """Half past twelve in Berlin's summer is half past ten for everybody."""
    wanted = recover.target("2020-07-01 12:30:00+02:00", 3)
    assert wanted.moment == datetime(2020, 7, 1, 10, 30, tzinfo=UTC)
    assert "--target=2020-07-01 12:30:00+02:00" in wanted.options()
    assert "--target-timeline=3" in wanted.options()
    assert recover.target("latest", None).options() == ["--type=default"]
