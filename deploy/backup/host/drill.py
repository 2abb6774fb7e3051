"""The restore drill: the newest backup and all archived WAL are restored beside the database, checked, and deleted."""

import re
import shutil
import time

from deploy.backup.host import private, repository, state
from deploy.backup.host.private import SOCKET, Recovered, Target
from deploy.backup.host.system import BIN, DATA, BackupError, psql, run, say

_FOLDER = DATA.parent / "messwarte-drill"
_WAL_SEGMENT = 16 * 2**20
# WAL that is replayed, and what a server writes beside its data.
_SPARE = 2**30
_RELATIONS = "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'm', 'i', 't')"
_ARCHIVED = "SELECT last_archived_wal FROM pg_stat_archiver"


def drill() -> None:
    """Try out a restore, and put the result into the metrics. Raises BackupError, after the failure is there."""
    with state.locked():
        begun = time.time()
        result: dict[str, float] = {"failed": 1}
        try:
            recovered, checked = _restore()
            seconds = time.time() - begun
            result = {
                "failed": 0,
                "last_success_timestamp_seconds": time.time(),
                "last_duration_seconds": round(seconds, 1),
                "recovered_age_seconds": round(begun - (recovered.last_transaction or _newest().ended), 1),
            }
        finally:
            private.discard(_FOLDER)
            remembered = state.load()
            remembered["drill"]["failures"] += result["failed"]
            remembered["drill"] |= result
            state.save(remembered)
    say(
        f"the drill took {seconds:.0f} s ({recovered.seconds_fetching:.0f} s fetching, "
        f"{recovered.seconds_replaying:.0f} s replaying WAL); {checked} tables and indices are sound; when it began, "
        f"the last transaction in it was {result['recovered_age_seconds']:.0f} s old"
    )


def need_space(size: int) -> None:
    """Raise BackupError unless a database of this size (bytes) can be restored beside the one that is there."""
    DATA.parent.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(DATA.parent).free, size + _SPARE
    if free < needed:
        raise BackupError(
            f"{DATA.parent} has {free // 2**20} MB free; restoring beside the old data needs {needed // 2**20} MB"
        )


def _restore() -> tuple[Recovered, int]:
    newest = _newest()
    need_space(newest.size)
    archived = run("psql", "-XAtq", "-U", "postgres", "-c", _ARCHIVED, check=False).stdout.strip()
    say(f"fetching the backup, {newest.size // 2**20} MB")
    fetching = private.fetch(_FOLDER, Target(), archive=False)
    say("replaying WAL")
    with private.server(_FOLDER, archive=False, fetching=fetching) as recovered:
        _refuse_gap(archived, recovered)
        say("checking tables and indices")
        run(BIN / "pg_amcheck", "-h", SOCKET, "-U", "postgres", "--all", "--install-missing")
        checked = sum(int(psql(_RELATIONS, database=name, socket=SOCKET)) for name in private.databases())
    return recovered, checked


def _refuse_gap(archived: str, recovered: Recovered) -> None:
    """Raise BackupError unless recovery came as far as the server says that it has archived."""
    segment = re.fullmatch(r"[0-9A-F]{8}([0-9A-F]{8})([0-9A-F]{8})", archived)
    if segment:
        begin = (int(segment[1], 16) << 32) + int(segment[2], 16) * _WAL_SEGMENT
        if recovered.position < begin:
            raise BackupError(
                f"recovery ended before {archived}, which the server had archived: WAL in between is missing at the "
                "place; make a full backup"
            )


def _newest() -> repository.Backup:
    found = repository.read()
    newest = found.newest() if found else None
    if not newest:
        raise BackupError("the place has no backup")
    return newest
