"""The lab's hosts, as `./messwarte up` wrote them down; the lab of another name with MESSWARTE_LAB."""

import json
import os
from pathlib import Path

_here = Path(__file__).resolve().parent
_state = _here.parent / ".lab" / os.environ.get("MESSWARTE_LAB", "lab")
_lab = json.loads((_state / "lab.json").read_text())
_hosts = [(name, {"ssh_hostname": host["address"], "address": host["address"]}) for name, host in _lab["hosts"].items()]
_data = {
    "ssh_user": _lab["ssh_user"],
    "ssh_key": _lab["ssh_key"],
    "ssh_known_hosts_file": _lab["known_hosts"],
    "ssh_strict_host_key_checking": "yes",
    "settings": os.environ.get("MESSWARTE_SETTINGS", str(_here / "lab.yml")),
    "secrets": str(_state / "secrets.yml"),
}

# One host carries everything; with several, each group has the hosts of its name (worker, worker2, ...).
_names = [name for name, _ in _hosts]


def _members(group: str) -> list[str]:
    return [name for name in _names if name.rstrip("0123456789") == group] or _names[:1]


all = (_hosts, _data)  # noqa: A001  pyinfra's name
database = _members("database")
cache = _members("cache")
monitoring = _members("monitoring")
worker = _members("worker")
app = _members("app")
backup = [name for name in _names if name == "backup"]
