"""What is remembered between runs, and the same as metrics for node exporter's textfile collector."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.backup.host.system import STATE, BackupError

METRICS = STATE / "metrics.prom"
KINDS = {"full": ("full",), "differential": ("diff", "incr")}
_NOTE = STATE / "state.json"
# Name, type, help, and the label of each sample, if it has one.
_FAMILIES = (
    ("messwarte_backup_enrolled_timestamp_seconds", "gauge", "When this host's database got its place."),
    ("messwarte_backup_last_success_timestamp_seconds", "gauge", "End of the newest good backup, by type."),
    ("messwarte_backup_last_duration_seconds", "gauge", "How long the newest good backup took, by type."),
    ("messwarte_backup_last_size_bytes", "gauge", "Size of the database in the newest good backup, by type."),
    ("messwarte_backup_last_stored_bytes", "gauge", "What the newest good backup added at the place, by type."),
    ("messwarte_backup_last_failed", "gauge", "Whether the last run failed (1) or not (0), by type."),
    ("messwarte_backup_failures_total", "counter", "Runs that failed, by type."),
    ("messwarte_restore_drill_last_success_timestamp_seconds", "gauge", "When a restore was last tried out well."),
    ("messwarte_restore_drill_last_duration_seconds", "gauge", "How long the last good drill took."),
    ("messwarte_restore_drill_recovered_age_seconds", "gauge", "Age of the last transaction in the last good drill."),
    ("messwarte_restore_drill_last_failed", "gauge", "Whether the last drill failed (1) or not (0)."),
    ("messwarte_restore_drill_failures_total", "counter", "Drills that failed."),
)  # fmt: skip


def load() -> dict[str, Any]:
    """Return what is remembered; of a new host nothing is."""
    try:
        found = dict(json.loads(_NOTE.read_text()))
    except (FileNotFoundError, ValueError):
        found = {}
    kinds = {kind: {"failed": 0, "failures": 0} for kind in KINDS}
    return {"enrolled": None, "backups": kinds, "drill": {"failed": 0, "failures": 0}} | found


def save(state: dict[str, Any]) -> None:
    """Remember, and publish."""
    _write(_NOTE, json.dumps(state))
    _write(METRICS, metrics(state))


@contextlib.contextmanager
def locked(busy: str = "") -> Iterator[None]:
    """Keep other runs out meanwhile; wait for one at work, or raise BackupError where one is not to wait."""
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise BackupError(busy) from None
        yield


def metrics(state: dict[str, Any]) -> str:
    """Return the state in Prometheus' text format."""
    lines = []
    for name, kind, meaning in _FAMILIES:
        samples = [f"{name}{labels} {value}" for labels, value in _samples(name, state)]
        if samples:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *samples]
    return "".join(f"{line}\n" for line in lines)


def _samples(name: str, state: dict[str, Any]) -> list[tuple[str, float]]:
    if name == "messwarte_backup_enrolled_timestamp_seconds":
        return [("", state["enrolled"]["at"])] if state["enrolled"] else []
    if name.startswith("messwarte_restore_drill"):
        parts = [("", state["drill"])]
        key = name.removeprefix("messwarte_restore_drill_")
    else:
        parts = [(f'{{type="{kind}"}}', part) for kind, part in state["backups"].items()]
        key = name.removeprefix("messwarte_backup_")
    key = {"failures_total": "failures", "last_failed": "failed"}.get(key, key)
    return [(labels, part[key]) for labels, part in parts if key in part]


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all; node exporter, another user, reads the metrics."""
    fresh = path.with_suffix(".new")
    with fresh.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.chmod(0o644)
    fresh.replace(path)
