"""Who the firewall lets in from anywhere: SSH, wherever it listens, and no service of ours."""

from pathlib import Path

from deploy.firewall.deploy import component
from deploy.plan import HostFacts, Plan
from deploy.topology import GROUPS, Topology, node
from settings import Secrets, Settings

_LISTENERS = (
    ("0.0.0.0", 22, "sshd", "ssh.service"),  # noqa: S104
    ("0.0.0.0", 2200, "sshd", "ssh.service"),  # noqa: S104
    ("0.0.0.0", 2222, "sshd", "messwarte-backup-store.service"),  # noqa: S104
)


def test_ssh_server_of_the_backups_is_not_open_to_all_even_when_it_is_about_to_go(tmp_path: Path) -> None:
    """The host's own is, at every port; else whoever deploys would be locked out."""
    settings = Settings.model_validate({"network": {"firewall": True}})
    facts = HostFacts(2**32, "3.13", "x86_64", "debian 13", True, 0, {}, _LISTENERS, [], False, False)
    one = node("one", {"address": "127.0.0.1"}, [group for group in GROUPS if group != "backup"])
    found = component(Plan(settings, Secrets(tmp_path / "secrets.yml"), Topology([one], settings), one, facts), ())
    assert found is not None
    ruleset = next(str(file.content) for file in found.files if file.path == "ruleset.nft")
    (ports,) = [line.strip() for line in ruleset.splitlines() if "tcp dport" in line]
    assert ports == "tcp dport { 22, 2200 } accept"
