"""Generations: what a new one names and lacks is refused; what a unit has read otherwise than it is now is known."""

import time
from pathlib import Path
from typing import Any

import pytest

from deploy.components import wanted
from deploy.host import generations, notes
from deploy.host.system import ApplyError, FoundUnit
from deploy.plan import HostFacts, Plan
from deploy.topology import GROUPS, Topology, node
from settings import Secrets, Settings

_SETTINGS = {
    "network": {"exposed": True, "firewall": True},
    "backup": {"mode": "deployed"},
    "erp": {"mode": "demo"},
    "alertmanager": {"email": {"smarthost": "127.0.0.1:25", "sender": "a@localhost", "recipients": ["b@localhost"]}},
}


def _generation(folder: Path, files: dict[str, str]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


@pytest.mark.parametrize("spread", [False, True])
def test_no_component_names_a_file_that_it_lacks(tmp_path: Path, spread: bool) -> None:
    """With everything on one host, which has no place for backups, and with a host for each group."""
    settings = Settings.model_validate(_SETTINGS | ({} if spread else {"backup": {"mode": "off"}}))
    secrets = Secrets(tmp_path / "secrets.yml")
    groups = [[group] for group in GROUPS] if spread else [[group for group in GROUPS if group != "backup"]]
    nodes = [node(own[0], {"address": f"10.0.0.{number}"}, own) for number, own in enumerate(groups, 1)]
    seen = set()
    for one in nodes:
        facts = HostFacts(2**33, "3.13", "x86_64", "debian 13", True, 0, {}, (), [], False, False)
        for name, component in wanted(Plan(settings, secrets, Topology(nodes, settings), one, facts, True)).items():
            seen.add(name)
            texts = {file.path: file.content for file in component.files if isinstance(file.content, str)}
            # What a host's validation adds.
            texts |= {"passwd": ""} if name == "backup_store" else {}
            generations.resolve(name, _generation(tmp_path / one.name / name, texts))
    assert seen >= {
        "gate",
        "postgresql",
        "redis",
        "prometheus",
        "erp",
        "firewall",
        *(["backup_store"] if spread else []),
    }


def test_file_that_is_named_and_missing_is_said(tmp_path: Path) -> None:
    unit = "[Service]\nLoadCredential=password:/etc/messwarte/erp/current/password\n# /etc/messwarte/erp/current/*.pem"
    staged = _generation(tmp_path, {"erp.service": unit, "ca.pem": "", "other.conf": "/etc/messwarte/tasks/current/x"})
    with pytest.raises(ApplyError, match=r"erp\.service names password, which is missing"):
        generations.resolve("erp", staged)
    (staged / "password").write_text("secret")
    generations.resolve("erp", staged)


def _touched(folder: Path, state: str = "active/enabled", unit: str = "a.service") -> dict[str, Any]:
    """Return the note of a generation whose files were touched after it was applied."""
    generation = _generation(folder, {"reloaded.conf": "", "started.conf": ""})
    files = {str(path): notes.fingerprint(path) for path in generation.iterdir()}
    return {
        "generation": str(generation),
        "applied": time.time() - 3600,
        "links": {},
        "files": files,
        "units": {unit: state},
        "reload_for": {unit: ["reloaded.conf"]},
    }


@pytest.mark.parametrize(
    ("began", "reloaded", "unread"),
    [
        (-7200, 0, {"reloaded.conf", "started.conf"}),
        (-7200, -1800, {"reloaded.conf", "started.conf"}),
        (-7200, 60, {"started.conf"}),
        (60, 0, set()),
    ],
)
def test_file_that_was_touched_after_its_unit_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: float, reloaded: float, unread: set[str]
) -> None:
    """It counts as changed, so that its unit reads it anew, until a start, or a reload where that is enough."""
    note = _touched(tmp_path)
    now = time.time()
    units = {"a.service": FoundUnit("active/enabled", [], now + began, now + reloaded if reloaded else 0)}
    assert generations.unread(note, units) == {str(tmp_path / name): "a.service" for name in unread}
    monkeypatch.setattr(generations, "look_at_units", lambda _units: units)
    assert generations.changed(note, tmp_path, tmp_path) == unread


@pytest.mark.parametrize(
    ("unit", "good", "state"),
    [
        ("a.service", "active/enabled", "inactive/enabled"),
        ("a.service", "/enabled", "active/enabled"),
        ("a.timer", "active/enabled", "active/enabled"),
    ],
)
def test_unit_that_has_read_nothing(tmp_path: Path, unit: str, good: str, state: str) -> None:
    """One that is down, that is enabled only, and a timer, whose programs read their files each time."""
    note = _touched(tmp_path, good, unit)
    assert generations.unread(note, {unit: FoundUnit(state, [], 0, 0)}) == {}


def test_files_as_they_were_applied_are_read_by_whatever_runs(tmp_path: Path) -> None:
    """A deploy writes all files anew, and leaves alone a unit none of whose files it changed."""
    note = _touched(tmp_path) | {"applied": time.time() + 1}
    assert generations.unread(note, {"a.service": FoundUnit("active/enabled", [], 0, 0)}) == {}
