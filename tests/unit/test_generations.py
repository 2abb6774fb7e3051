"""A new generation's files name no other of it that is not there, wherever in a stack; what is missing is refused."""

from pathlib import Path

import pytest

from deploy.components import wanted
from deploy.host import generations
from deploy.host.system import ApplyError
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
