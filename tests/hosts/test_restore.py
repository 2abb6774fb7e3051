"""The database comes back: to a second before a disaster, to a lost host's last archived WAL, and despite faults."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import Lab, Machine
from lab.system import wait_until
from proof import disturbances, recovery
from proof.access import load_options
from tests.hosts.conftest import ROOT, STATE, Run, Stack, lab_of

pytestmark = pytest.mark.long
_PSQL = "runuser -u postgres -- psql -XAtq"
_DRILLED = "messwarte_restore_drill_last_success_timestamp_seconds"
_MAIN = "/var/lib/postgresql/17/main"


class Backed:
    """A lab with the stack on one host, its backups on another, and no load but what a test sends."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        """Boot and deploy; the first backup and the first drill have succeeded."""
        self.lab = lab
        self.stack = Stack(lab.name, lab.up(["database", "backup"]))
        backup = {"mode": "deployed", "archive_timeout": "5s"}
        self.settings = self.stack.settings(folder, backup=backup, erp={"demo_load": 0})
        run = self.deploy()
        assert (run.status, run.failed) == (0, {}), run.said
        self.metric_becomes("messwarte_restore_drill_last_failed", 0)
        wait_until(lambda: _DRILLED in self.metrics(), "the first drill", 120)

    @property
    def database(self) -> Machine:
        """Where the database is."""
        return self.stack.machines["database"]

    @property
    def store(self) -> Machine:
        """Where the backups are."""
        return self.stack.machines["backup"]

    def load(self) -> Any:
        """Postings on the ERP meanwhile."""
        erp = load_options(STATE / self.lab.name, f"https://{self.database.address}:8000")
        return disturbances.requests(erp, "posting", 8, 600)

    def deploy(self) -> Run:
        """Deploy."""
        return self.stack.deploy(self.settings)

    def verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `./messwarte` on this lab."""
        environment = os.environ | {"MESSWARTE_LAB": self.lab.name, "MESSWARTE_SETTINGS": str(self.settings)}
        command = [str(ROOT / "messwarte"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)

    def restore(self, to: str) -> dict[str, Any]:
        """Restore with the verb; return what the host noted about it."""
        done = self.verb("restore", "--to", to, "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(self.database.succeed("cat /var/lib/messwarte-backup/restore.json")))

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the database host that node exporter serves, by name and labels."""
        text = self.stack.client(9100, "database").get("/metrics").text
        return _samples(text, "messwarte_")

    def archiver(self) -> dict[str, float]:
        """Return what pgstat_exporter says of the archiver."""
        return _samples(self.stack.client(9187, "database").get("/metrics").text, "pg_stat_arch")

    def metric_becomes(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        wait_until(lambda: self.metrics().get(name) == value, f"{name} is {value}", 120)

    def is_well(self) -> None:
        """Nothing is broken, the ERP answers, and a deploy has nothing to do."""
        done = self.verb("status", "--json")
        assert done.returncode == 0, done.stdout
        assert self.stack.client(8000, "database").get("/kategorien").is_success
        run = self.deploy()
        assert (run.status, run.changed, run.failed) == (0, {}, {}), run.said


def _samples(text: str, prefix: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith(prefix))
    return {name: float(value) for name, _, value in lines}


@pytest.fixture(scope="module")
def backed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backed]:
    """Two hosts that the tests of this module share; each leaves them well."""
    with lab_of("test-backup") as lab:
        yield Backed(lab, tmp_path_factory.mktemp("backed"))


def test_secrets_are_seen_by_nobody_else(backed: Backed, tmp_path: Path) -> None:
    """Passphrase and private key are in no readable file, no process list and no log; the store shows nothing."""
    passphrase = backed.stack.secrets["backup_passphrase"]
    key = backed.stack.secrets["backup_key"].splitlines()[3]
    unit = "messwarte-backup-full.service"
    backed.database.succeed(
        f"systemctl start --no-block {unit}; while systemctl is-active {unit} | grep -q activating; "
        "do cat /proc/[0-9]*/cmdline; sleep 0.02; done > /tmp/commands 2>/dev/null; grep -c pgbackrest /tmp/commands"
    )
    secrets = tmp_path / "secrets"
    secrets.write_text(f"{passphrase}\n{key}\n")
    for machine in (backed.database, backed.store):
        machine.copy_to_host(secrets, "/root/secrets")
        found = machine.execute(
            "grep -rlF -f /root/secrets /etc /var/log /run /tmp /var/lib/messwarte-backup 2>/dev/null"
        )[1].split()
        assert all(machine.succeed(f"stat -c %a/%U:%G {path}").strip() == "640/root:postgres" for path in found), found
        assert bool(found) == (machine is backed.database)
        assert machine.execute("journalctl --no-pager | grep -qF -f /root/secrets")[0] == 1
    assert b"lagerbewegung" not in subprocess.run(
        [*backed.store.ssh(), "cat /srv/messwarte-backup/repository/backup/main/*/backup.manifest"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip


def test_disaster_under_load_is_undone_to_a_second_before_it(backed: Backed) -> None:
    """Every table has the hash that it had before; of what else was committed then, all until that moment is there."""
    with backed.load(), recovery.ticking(backed.database) as ticks:
        backed.database.succeed("systemctl start messwarte-backup-differential.service")
        before = recovery.hashes(backed.database)
        wait_until(lambda: recovery.hashes(backed.database) != before, "postings change tables", 60)
        wanted, moment = recovery.disaster(backed.database)
    assert "lagerbewegung" not in recovery.hashes(backed.database)
    result = backed.restore(moment.isoformat(sep=" "))
    assert recovery.hashes(backed.database) == wanted
    assert result["last_transaction"] <= moment.timestamp()
    # Nothing wrote to the tables of the ERP round that moment; the ticks, five a second, have a schema of their own.
    number = recovery.last_tick(backed.database)
    at = {tick.number: tick.at for tick in ticks.seen}
    # The next one may have begun before the moment, and have been committed after it.
    assert at[number] <= moment.timestamp() < at[number + 2]
    backed.database.succeed(f"{_PSQL} -d erp -c 'DROP SCHEMA proof CASCADE'")
    backed.database.succeed(f"test -f {result['kept']}/PG_VERSION")
    backed.is_well()
    assert backed.database.succeed(f"{_PSQL} -c 'SELECT timeline_id FROM pg_control_checkpoint()'").strip() == "2"
    backed.database.succeed(f"{_PSQL} -c 'SELECT pg_switch_wal()'")
    backed.database.wait_until_succeeds(
        f"{_PSQL} -c 'SELECT last_archived_wal FROM pg_stat_archiver' | grep ^00000002", 60
    )
    backed.database.succeed(f"rm -r {result['kept']}")


def test_lost_host_comes_back_to_the_last_archived_wal(backed: Backed) -> None:
    """A deploy to the new host refuses to begin anew; a restore brings back what was archived, and tells its age."""
    with backed.load(), recovery.ticking(backed.database) as ticks:
        wait_until(
            lambda: any(tick.wal_file <= recovery.last_archived(backed.store) for tick in list(ticks.seen)),
            "WAL with ticks is archived",
            120,
        )
        backed.database.crash()
        lost = time.time()
    last = recovery.last_archived(backed.store)
    archived = [tick for tick in ticks.seen if tick.wal_file <= last]
    assert archived
    backed.lab.replace("database")
    refused = backed.deploy()
    assert refused.status != 0
    assert "the place holds `main` of another database" in refused.said
    assert "bring it back with `./messwarte restore`" in refused.said
    result = backed.restore("latest")
    number = recovery.last_tick(backed.database)
    # The commit of the next one may be in the same file, its acknowledgement no more.
    assert number - archived[-1].number in {0, 1}
    found = next(tick for tick in ticks.seen if tick.number == number)
    after = next((tick.at for tick in ticks.seen if tick.number > number), lost)
    assert found.at <= result["last_transaction"] <= after + 1
    print(f"lost with the host: the last {lost - found.at:.1f} s; restored in {result['seconds']} s")  # noqa: T201
    backed.is_well()
    full = 'messwarte_backup_last_success_timestamp_seconds{type="full"}'
    wait_until(lambda: backed.metrics()[full] > lost, "the new host's first backup", 120)
    wait_until(lambda: backed.metrics().get(_DRILLED, 0) > lost, "the new host's first drill", 120)
    backed.database.succeed(f"{_PSQL} -d erp -c 'DROP SCHEMA proof CASCADE'; rm -rf {_MAIN}.before-restore-*")


def test_place_that_cannot_be_reached_is_told_and_the_database_goes_on(backed: Backed) -> None:
    """WAL waits, a backup fails, status and metrics say so; when the place is back, all is brought there."""
    backed.store.block()
    try:
        with backed.load():
            wait_until(lambda: backed.archiver()["pg_stat_archiver_waiting_files"] > 1, "WAL waits", 180)
            before = recovery.hashes(backed.database)
            wait_until(lambda: recovery.hashes(backed.database) != before, "postings go on", 60)
        said = backed.database.fail("systemctl start messwarte-backup-differential.service")
        assert "failed" in said
        assert backed.metrics()['messwarte_backup_last_failed{type="differential"}'] == 1
        status = json.loads(backed.verb("status", "--json").stdout)
        (line,) = [line for line in status if line["component"] == "backup"]
        assert not line["healthy"]
        assert "WAL is not archived since" in line["detail"]
        wait = backed.archiver()["pg_stat_archiver_longest_wait_seconds"]
        ready = f"find {_MAIN}/pg_wal/archive_status -name '*.ready' -printf '%T@\\n' | sort -n | head -n 1"
        oldest = time.time() - float(backed.database.succeed(ready))
        assert wait == pytest.approx(oldest, abs=10)
        refused = backed.verb("restore", "--to", "latest", "--yes")
        assert refused.returncode != 0
        assert "nothing was stopped or restored" in refused.stderr
    finally:
        backed.store.unblock()
    backed.database.succeed("systemctl start messwarte-backup-differential.service")
    wait_until(lambda: backed.archiver()["pg_stat_archiver_waiting_files"] == 0, "WAL is brought there", 180)
    assert backed.metrics()['messwarte_backup_last_failed{type="differential"}'] == 0
    backed.is_well()


def test_wrong_passphrase_is_refused_and_the_right_one_goes_on(backed: Backed) -> None:
    """The message names the secret; the configuration before it is put back and goes on archiving."""
    path = STATE / backed.lab.name / "secrets.yml"
    right = path.read_text()
    path.write_text(yaml.safe_dump(yaml.safe_load(right) | {"backup_passphrase": "wrong"}))
    try:
        run = backed.deploy()
    finally:
        path.write_text(right)
    assert run.status != 0
    assert "Is the secret `backup_passphrase` the one that it was made with?" in run.said
    assert "The configuration before it was put back and runs." in run.said
    backed.database.succeed("messwarte-backup info")
    run = backed.deploy()
    assert run.status == 0, run.said
    backed.is_well()


def test_full_place_fails_a_backup_and_loses_nothing(backed: Backed) -> None:
    """Backup and archiving fail by name; with room again, the next ones succeed and the drill finds no gap."""
    folder = "/srv/messwarte-backup/repository"
    backed.store.succeed(
        f"cp -a {folder} /root/kept && mount -t tmpfs -o size=200m,mode=700 tmpfs {folder} && "
        f"chown messwarte-backup: {folder} && cp -a /root/kept/. {folder} && dd if=/dev/zero of={folder}/filler || true"
    )
    try:
        backed.database.fail("systemctl start messwarte-backup-full.service")
        assert backed.metrics()['messwarte_backup_last_failed{type="full"}'] == 1
        backed.database.succeed(f"{_PSQL} -c 'SELECT pg_switch_wal()'")
        wait_until(lambda: backed.archiver()["pg_stat_archiver_failed_total"] > 0, "archiving fails", 60)
        backed.store.succeed(f"rm {folder}/filler")
        backed.database.succeed("systemctl start messwarte-backup-full.service")
        wait_until(lambda: backed.archiver()["pg_stat_archiver_waiting_files"] == 0, "WAL is brought there", 180)
        done = backed.verb("restore", "--drill")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "tables and indices are sound" in done.stdout
    finally:
        backed.store.succeed(
            f"rm -f {folder}/filler; rm -rf /root/kept && cp -a {folder} /root/kept && umount {folder} && "
            f"rm -rf {folder}/* && cp -a /root/kept/. {folder} && rm -r /root/kept"
        )
    backed.is_well()


def test_drill_finds_what_a_backup_alone_does_not_tell(backed: Backed) -> None:
    """An archived WAL file that is gone: the drill fails, its metric says so, and it leaves nothing behind."""
    backed.database.succeed("systemctl start messwarte-backup-full.service")
    switch = f"{_PSQL} -c 'SELECT pg_switch_wal()' && {_PSQL} -d erp -c 'CREATE TABLE gap (); DROP TABLE gap'"
    for _ in range(3):
        backed.database.succeed(switch)
        wait_until(lambda: backed.archiver()["pg_stat_archiver_waiting_files"] == 0, "WAL is brought there", 60)
    archived = backed.store.succeed("ls /srv/messwarte-backup/repository/archive/main/17-1/*/*").split()
    gone = sorted(path for path in archived if "-" in path.rpartition("/")[2])[-2]
    backed.store.succeed(f"mv {gone} /root/gone")
    failed = backed.verb("restore", "--drill")
    assert failed.returncode != 0
    assert "WAL in between is missing at the place" in failed.stdout + failed.stderr
    assert backed.metrics()["messwarte_restore_drill_last_failed"] == 1
    backed.database.fail("ls -d /var/lib/postgresql/17/messwarte-drill")
    backed.store.succeed(f"mv /root/gone {gone}")
    assert backed.verb("restore", "--drill").returncode == 0
    assert backed.metrics()["messwarte_restore_drill_last_failed"] == 0
    backed.is_well()


# Where a restore is when it is killed, as its files show.
_PHASES = (
    f"test -e {_MAIN}.restored/base",
    f"test -e {_MAIN}.restored/postmaster.pid",
)


@pytest.mark.parametrize("phase", _PHASES)
def test_killed_restore_is_completed_by_the_next(backed: Backed, phase: str) -> None:
    """All its processes end at once; the old data are whole, and the second try succeeds."""
    wanted = recovery.hashes(backed.database)
    backed.database.succeed(
        "systemd-run --quiet --unit=restoring /usr/local/sbin/messwarte-backup restore --to latest",
        f"for i in $(seq 6000); do {phase} && break; sleep 0.01; done; {phase} && systemctl kill -s KILL restoring",
    )
    assert backed.database.execute("systemctl is-active postgresql@17-main")[0] != 0
    backed.database.execute("systemctl reset-failed restoring")
    result = backed.restore("latest")
    assert recovery.hashes(backed.database) == wanted
    backed.is_well()
    backed.database.succeed(f"rm -r {result['kept']}; test ! -e {_MAIN}.restored")


def test_data_that_are_gone_are_restored(backed: Backed) -> None:
    """As after a kill between the two renames: the folder is missing, and a deploy alone cannot help."""
    backed.database.succeed(f"{_PSQL} -c 'SELECT pg_switch_wal()'")
    wait_until(lambda: backed.archiver()["pg_stat_archiver_waiting_files"] == 0, "WAL is brought there", 60)
    wanted = recovery.hashes(backed.database)
    backed.database.succeed(f"systemctl kill -s KILL postgresql@17-main; rm -r {_MAIN}")
    result = backed.restore("latest")
    assert result["kept"] is None
    assert recovery.hashes(backed.database) == wanted
    backed.is_well()


def test_moments_that_cannot_be_are_refused_before_anything_is_stopped(backed: Backed) -> None:
    """Before the first backup, in the future, without time zone; the database is not even asked."""
    started = backed.database.succeed(f"{_PSQL} -c 'SELECT pg_postmaster_start_time()'")
    for moment, words in (
        ("2020-01-01 00:00:00+00", "is before the end of the oldest backup"),
        ("2100-01-01 00:00:00+00", "has not come yet"),
        ("2026-11-25 00:00:00", "is no moment; it must be `latest`"),
    ):
        refused = backed.verb("restore", "--to", moment, "--yes")
        assert refused.returncode != 0
        assert words in refused.stdout + refused.stderr
    assert backed.database.succeed(f"{_PSQL} -c 'SELECT pg_postmaster_start_time()'") == started
