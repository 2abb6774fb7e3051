"""Production: six hosts, one per group. Copy to production.py and put in your own hosts.

    cp inventories/production.example.py inventories/production.py
    cp inventories/production.example.yml inventories/production.yml
    pyinfra inventories/production.py deploy/stack.py

A host may be in several groups: one host can carry the whole stack, but for the backups. `database`, `cache`,
`monitoring` and `backup` have one host each; `worker` and `app` as many as you like. Leave out the group of what you do
not deploy (see `mode` in production.yml). Hosts run Debian 13 with python3 and an SSH server; nothing else
has to be there.
"""

from pathlib import Path

_here = Path(__file__).resolve().parent
_name = Path(__file__).name.removesuffix(".py")


def _host(name: str, address: str) -> tuple[str, dict[str, str]]:
    """A host by the name that you see in output and on dashboards, and by its IPv4 address in the private network.

    SSH goes to the same address; where it has to take another way (a public name, a jump host that ~/.ssh/config
    describes), give that as `ssh_hostname`.
    """
    return name, {"address": address, "ssh_hostname": address}


_data = {
    # root, or a user with sudo. Where sudo asks for a password, run pyinfra with --same-sudo-password, which asks once.
    "ssh_user": "deploy",
    "_sudo": True,
    # Keys come from the SSH agent or ~/.ssh; name another one here as `ssh_key`.
    # A host that is not in known_hosts is refused: `ssh-keyscan` it, compare the fingerprint, then add it.
    "ssh_strict_host_key_checking": "yes",
    # What each component is set to, and the secrets, which the first run makes (mode 0600; back this file up).
    # A SOPS or an age file is a place for them too: docs/secrets.md.
    "settings": str(_here / f"{_name}.yml"),
    "secrets": str(_here / f"{_name}.secrets.yml"),
}

all = (  # noqa: A001  pyinfra's name
    [
        _host("erp-db", "10.20.0.11"),
        _host("erp-cache", "10.20.0.12"),
        _host("erp-monitoring", "10.20.0.13"),
        _host("erp-worker", "10.20.0.14"),
        _host("erp-app", "10.20.0.15"),
        _host("erp-backup", "10.20.0.16"),
    ],
    _data,
)
database = ["erp-db"]  # PostgreSQL, its exporter, versioned SQL
cache = ["erp-cache"]  # Redis, its exporter
monitoring = ["erp-monitoring"]  # Prometheus, Alertmanager, Grafana
worker = ["erp-worker"]  # the task queue's worker and API
app = ["erp-app"]  # where the ERP runs, with the two lines that measure it
backup = ["erp-backup"]  # keeps PostgreSQL's backups; leave it out when production.yml names another place
