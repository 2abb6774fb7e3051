"""The SFTP server of a backup host: who logs in gets at the backups, and at nothing else of that host."""

import re
import socket
from collections.abc import Iterator

import pytest
import yaml

from tests.hosts.conftest import Stack, lab_of

_OFF = ("redis", "prometheus", "alertmanager", "grafana", "erp", "tasks")
_UNIT = "messwarte-backup-store.service"
_BACKUP = "messwarte-backup-full.service"
_USER = "messwarte-backup"
_FOLDER = "/srv/messwarte-backup/repository"
_CURRENT = "/etc/messwarte/backup_store/current"
# A process that ends meanwhile has none to show.
_STATUS = f"""ps -e -o pid=,unit:50= | awk '$2 == "{_UNIT}" {{print "/proc/" $1 "/status"}}' | xargs cat"""
_SEEN = {"/dev", "/etc", "/lib", "/repository", "/run", "/usr"}
# All but the first and the last can be read by every user of the host itself.
_ELSEWHERE = (
    "/etc/shadow", "/etc/hostname", "/etc/machine-id", "/etc/ssh/sshd_config", "/etc/os-release", "/proc/1/status",
    "/run/systemd/container", "/usr/bin/env", "/var/lib/dpkg/status", f"{_CURRENT}/host_key",
)  # fmt: skip


class Kept:
    """PostgreSQL on one host, its backups on another, and the login that the one has on the other."""

    def __init__(self, stack: Stack) -> None:
        """Take the key out of the configuration: ssh wants one that nobody else can read."""
        self.database, self.store = stack.machines["database"], stack.machines["backup"]
        self.database.succeed("install -m 600 /etc/messwarte/backup/current/id_ed25519 /root/key")
        known = "-o UserKnownHostsFile=/etc/messwarte/backup/current/known_hosts -o StrictHostKeyChecking=yes"
        self.options = f"-i /root/key {known} -o BatchMode=yes -o Port=2222"
        self.login = f"{_USER}@{self.store.address}"

    def sftp(self, command: str) -> str:
        """Return a command of sftp as one of the database host's shell."""
        return f"echo '{command}' | sftp -q -b - {self.options} {self.login}"

    def ssh(self, options: str, command: str = "") -> str:
        """Return a login as a command of the database host's shell; it ends by itself in any case."""
        return f"timeout 30 ssh {options} {self.options} {self.login} {command} </dev/null"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Two hosts; the first backup and the first drill have succeeded."""
    settings = tmp_path_factory.mktemp("settings") / "settings.yml"
    parts = {
        "postgresql": {"memory": "1GB"},
        "backup": {"mode": "deployed"},
        "network": {"firewall": True},
        **{name: {"mode": "off"} for name in _OFF},
    }
    settings.write_text(yaml.safe_dump(parts))
    with lab_of("test-backup-store") as lab:
        stack = Stack(lab.name, lab.up(["database", "backup"]))
        run = stack.deploy(settings)
        assert (run.status, run.failed) == (0, {}), run.said
        stack.machines["database"].succeed("systemctl start messwarte-restore-drill.service")
        again = stack.deploy(settings)
        assert (again.status, again.changed) == (0, {}), again.said
        yield Kept(stack)


def test_a_stranger_does_not_reach_the_store(kept: Kept) -> None:
    """SSH is open to all, this other SSH server to the database's host alone; not for one deploy, but for any."""
    socket.create_connection((kept.store.address, 22), 5).close()
    with pytest.raises(TimeoutError):
        socket.create_connection((kept.store.address, 2222), 3)
    kept.database.succeed(kept.sftp("ls /repository"))


def test_the_store_is_confined_while_a_backup_runs(kept: Kept) -> None:
    """Held at work: systemd rates the unit as it does all others, and none of its processes has any privilege."""
    connected = f"ss -Htnp state established dst {kept.store.address} dport = :2222 | grep -q pgbackrest"
    kept.database.succeed(
        f"systemctl start --no-block {_BACKUP}; for i in $(seq 3000); do {connected} && break; sleep 0.01; done; "
        f"{connected} && systemctl kill --signal STOP {_BACKUP}"
    )
    try:
        rated = kept.store.succeed(f"systemd-analyze security --no-pager {_UNIT} | tail -1")
        status = kept.store.execute(_STATUS)[1]
        assert kept.database.execute(f"systemctl is-active {_BACKUP}")[1] == "activating\n"
    finally:
        kept.database.succeed(f"systemctl kill --signal CONT {_BACKUP}")
    score = re.search(r": ([\d.]+) ", rated)
    assert score
    assert float(score[1]) <= 2.0, rated
    uids = re.findall(r"(?m)^Uid:\t(.*)$", status)
    assert len(uids) > 1, "sshd, and what serves the session"
    assert set(uids) == {"\t".join([kept.store.succeed(f"id -u {_USER}").strip()] * 4)}
    assert set(re.findall(r"(?m)^Cap(?:Prm|Eff|Bnd|Amb):\t(.*)$", status)) == {"0" * 16}
    kept.database.wait_until_succeeds(f"systemctl is-active {_BACKUP} | grep -qx inactive", 120)
    assert kept.database.succeed(f"systemctl show --value -p Result {_BACKUP}") == "success\n"


def test_a_login_reaches_the_store_and_no_more_of_the_host(kept: Kept) -> None:
    """Files that are there and that any user of the host can read are not; of its users there is the login's own."""
    database, store = kept.database, kept.store
    info = "archive/main/archive.info"
    database.succeed(kept.sftp(f"get /repository/{info} /root/got"))
    hashed = "sha256sum {} | cut -d' ' -f1"
    assert database.succeed(hashed.format("/root/got")) == store.succeed(hashed.format(f"{_FOLDER}/{info}"))
    database.succeed(kept.sftp("put /etc/hostname /repository/brought"))
    assert store.succeed(f"stat -c %U {_FOLDER}/brought; rm {_FOLDER}/brought") == f"{_USER}\n"

    shown = database.succeed(kept.sftp("ls -1 /")).split()
    # Not every architecture has the last one.
    assert {name for name in shown if re.match(r"/\w", name)} - {"/lib64"} == _SEEN
    database.succeed(kept.sftp("get /etc/passwd /root/got"))
    assert database.succeed("cat /root/got") == store.succeed(f"getent passwd {_USER}")
    for path in _ELSEWHERE:
        store.succeed(f"grep -qa . {path}")
        assert re.search("not found|denied", database.fail(kept.sftp(f"get {path} /root/got")))
    for folder in ("", "/etc", _CURRENT, "/dev", "/run", "/usr/lib", "/lib"):
        assert "dest open" in database.fail(kept.sftp(f"put /etc/hostname {folder}/brought"))
    assert "denied" in database.fail(kept.sftp("ls /dev/shm"))


def test_a_login_gets_no_shell_and_no_way_to_elsewhere(kept: Kept) -> None:
    """Neither a command, nor a terminal, nor a forwarding in either direction, nor a tunnel."""
    database = kept.database
    assert "sftp connections only" in database.fail(kept.ssh("-T", "id"))
    assert "sftp connections only" in database.fail(kept.ssh("-T"))
    assert "PTY allocation request failed" in database.fail(kept.ssh("-tt"))
    assert "prohibited" in database.fail(kept.ssh("-W 127.0.0.1:22"))
    for back in ("9999:127.0.0.1:22", "/repository/socket:127.0.0.1:22"):
        said = database.fail(kept.ssh(f"-N -o ExitOnForwardFailure=yes -R {back}"))
        assert "remote port forwarding failed" in said
    # A client needs a device of its own before it asks for a tunnel; a lab host has none.
    told = kept.store.succeed(f"sshd -T -f {_CURRENT}/sshd_config -o HostKey={_CURRENT}/host_key")
    assert {"permittunnel no", "disableforwarding yes", "allowusers messwarte-backup"} <= set(told.splitlines())
