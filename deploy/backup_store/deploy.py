"""Where another host's backups lie: an SFTP server of its own, with one user, who sees nothing but its folder."""

from deploy.component import Component, Door, File, Unit, render
from deploy.plan import Plan

_T = "backup_store/templates"
_UNIT = "messwarte-backup-store.service"
_CURRENT = "/etc/messwarte/backup_store/current"
USER = "messwarte-backup"
HOME = "/srv/messwarte-backup"
# As that user sees it.
FOLDER = "/repository"


def component(plan: Plan) -> Component | None:
    """Return the SFTP server for the host of group `backup`."""
    store = plan.topology.backup_store()
    if store is None or store.host != plan.node.name:
        return None
    host_key, _ = plan.secrets.ssh_key("backup_store_host_key")
    _, client = plan.secrets.ssh_key("backup_key")
    values = {"listen": store, "user": USER, "store": f"{HOME}{FOLDER}", "folder": FOLDER}
    values |= {"unit": _UNIT, "current": _CURRENT}
    return Component(
        "backup_store",
        packages=("openssh-server",),
        users=(f'u {USER} - "PostgreSQL backups"',),
        files=(
            File("sshd_config", render(f"{_T}/sshd_config.j2", **values)),
            File("host_key", host_key, 0o600),
            File("authorized_keys", f"{client}\n"),
            File(_UNIT, render(f"{_T}/{_UNIT}.j2", **values)),
        ),
        links={f"/etc/systemd/system/{_UNIT}": _UNIT},
        units=(Unit(_UNIT),),
        folders={HOME: "755 root:root", f"{HOME}{FOLDER}": f"700 {USER}:{USER}"},
        validate=(
            # All of the host's users that the unit gets to see; the number is the host's choice.
            f"getent passwd {USER} > passwd",
            # ssh-keygen refuses a key that sshd would.
            "ssh-keygen -l -f host_key && ssh-keygen -l -f authorized_keys",
            'install -d /run/sshd && sshd -t -f sshd_config -o HostKey="$PWD/host_key"',
        ),
        ports=(store.port,),
        listens=(store.address,),
        doors=(Door(store.port, to=("database",), protocol="own"),),
        ready=(f"ssh-keyscan -T 5 -p {store.port} {store.address} 2>/dev/null | grep -q ssh-ed25519",),
        detail=f"SFTP at {store}, backups in {HOME}{FOLDER}",
    )
