"""Real trouble for the demo ERP: locks that make postings wait, and a page that asks far too often."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from lab import Machine
from lab.system import wait_until

_PSQL = "runuser -u messwarte-owner -- psql -XAtq -v ON_ERROR_STOP=1 -U erp_owner -d erp"
# Longer than the slow threshold of 1 s, seen from the database itself.
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
    "AND clock_timestamp() - query_start > interval '1.3 s'"
)


@contextlib.contextmanager
def requests(erp: list[str], mix: str, rate: float, seconds: float) -> Iterator[None]:
    """Send requests to the ERP, given as options of `erp load`, meanwhile; the workload ends with the block."""
    command = [sys.executable, "-m", "erp", "load", *erp, "--mix", mix]
    command += ["--rate", str(rate), "--duration", str(seconds), "--json"]
    load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        load.terminate()
        load.wait(timeout=30)


def slow_postings(database: Machine, timeout: float = 60) -> int:
    """Hold a lock on the movements until postings have waited too long for it; return how many did."""
    session = [*database.ssh(), _PSQL]
    with subprocess.Popen(session, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None  # noqa: S101  a pipe was asked for
        holder.stdin.write("BEGIN; LOCK TABLE lagerbewegung IN EXCLUSIVE MODE;\n")
        holder.stdin.flush()
        waiting = 0

        def long_enough() -> bool:
            nonlocal waiting
            waiting = int(database.succeed(f'runuser -u postgres -- psql -XAtq -c "{_WAITING}"'))
            return waiting > 0

        try:
            wait_until(long_enough, "a posting waits for the lock", timeout, 0.2)
        finally:
            holder.stdin.write("ROLLBACK;\n")
            holder.stdin.close()
            holder.wait(timeout=30)
    return waiting
