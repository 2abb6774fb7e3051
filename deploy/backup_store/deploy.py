"""Where another host's backups lie: an SFTP server of its own, with one user, who sees nothing but its folder."""

from deploy.component import Component, Door, File, Unit, render
from deploy.plan import Plan

_T = "backup_store/templates"
_UNIT = "messwarte-backup-store.service"
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
    return Component(
        "backup_store",
        packages=("openssh-server",),
        users=(f'u {USER} - "PostgreSQL backups"',),
        files=(
            File("sshd_config", render(f"{_T}/sshd_config.j2", listen=store, user=USER, home=HOME)),
            File("host_key", host_key, 0o600),
            File("authorized_keys", f"{client}\n"),
            File(_UNIT, render(f"{_T}/{_UNIT}.j2", home=HOME)),
        ),
        links={f"/etc/systemd/system/{_UNIT}": _UNIT},
        units=(Unit(_UNIT),),
        # sshd wants every folder above the user's own to be root's; ssh-keygen refuses a key that sshd would.
        before=(f"install -d -m 755 {HOME} && install -d -m 700 -o {USER} -g {USER} {HOME}{FOLDER}",),
        validate=(
            "ssh-keygen -l -f host_key && ssh-keygen -l -f authorized_keys",
            'install -d /run/sshd && sshd -t -f sshd_config -o HostKey="$PWD/host_key"',
        ),
        ports=(store.port,),
        listens=(store.address,),
        doors=(Door(store.port, to=("database",), protocol="own"),),
        ready=(f"ssh-keyscan -T 5 -p {store.port} {store.address} 2>/dev/null | grep -q ssh-ed25519",),
        detail=f"SFTP at {store}, backups in {HOME}{FOLDER}",
    )
