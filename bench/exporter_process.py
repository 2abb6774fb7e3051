"""An exporter under way in `bench exporter`: scraped as Prometheus does, stopped between its turns; and its server."""

import contextlib
import gzip
import http.client
import os
import re
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.exporter_sides import Command, Group, Side, groups
from lab.postgresql import PostgresServer
from lab.system import BOUND, wait_until

_HEADERS = {
    "Accept": "text/plain;version=0.0.4",
    "Accept-Encoding": "gzip",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_KEYS = {"table": "relname", "index": "indexrelname", "database": "datname"}
# The table whose changes are watched.
MARK = "marke"
_MARKED = f'relname="{MARK}"'
_TICKS = os.sysconf("SC_CLK_TCK")
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Answer:
    """A response: its text, the seconds until the last byte was read, and the bytes that were sent."""

    text: str
    seconds: float
    size: int

    def series(self) -> int:
        """Return how many samples there are."""
        return sum(1 for line in self.text.splitlines() if line and not line.startswith("#"))

    def mark(self, side: Side) -> float:
        """Return how many rows the watched table has got, as this answer knows; -1 when it knows nothing."""
        tables = next(one for one in groups() if one.name == "tables")
        metric, column = side.series(tables, "n_tup_ins")
        at = self.text.find(_MARKED)
        while at >= 0:
            line = self.text[self.text.rfind("\n", 0, at) + 1 : self.text.find("\n", at)]
            if line.startswith(f"{metric}{{") and (not column or f'col="{column}"' in line):
                return float(line.rpartition(" ")[2])
            at = self.text.find(_MARKED, at + 1)
        return -1.0

    def lacks(self, side: Side, expected: dict[str, Collection[str]]) -> dict[str, int]:
        """Return by fact for how many tables, indices or databases it is not there; `expected` names those."""
        have: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
        for name, labels, _ in _SAMPLE.findall(self.text):
            parsed = dict(_LABEL.findall(labels))
            have[name, parsed.get("col", "")].append(parsed)
        missing = {}
        for group in groups():
            for fact in group.facts:
                if number := _missing(group, have[side.series(group, fact)], expected):
                    missing[f"{group.name}.{fact}"] = number
        return missing


def _missing(group: Group, found: list[dict[str, str]], expected: dict[str, Collection[str]]) -> int:
    if group.of not in _KEYS:
        return 0 if found else 1
    values = {labels.get(_KEYS[group.of]) for labels in found}
    return sum(1 for name in expected[group.of] if name not in values)


@dataclass
class Exporter:
    """A running exporter, stopped but for its turns."""

    side: Side
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    _wire: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self._wire = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def scrape(self) -> Answer:
        """Scrape once; raises RuntimeError with the log when there is no answer."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.side.name} has ended: {self.log.read_text()[-2000:]}")
        begun = time.perf_counter()
        self._wire.request("GET", "/metrics", headers=_HEADERS)
        response = self._wire.getresponse()
        body = response.read()
        seconds = time.perf_counter() - begun
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{self.side.name} says {response.status}: {body[:2000].decode()}")
        zipped = response.getheader("Content-Encoding") == "gzip"
        return Answer((gzip.decompress(body) if zipped else body).decode(), seconds, len(body))

    def hang_up(self) -> None:
        """Close the connection; the next scrape makes another."""
        self._wire.close()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Let it run, its connection made anew; without this it stands still."""
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.hang_up()
            self.process.send_signal(signal.SIGSTOP)

    def peak_bytes(self) -> int:
        """Return the most memory it has had (VmHWM)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@contextlib.contextmanager
def started(side: Side, command: Command, port: int, directory: Path) -> Iterator[Exporter]:
    """Start an exporter and wait until it answers; it is ended afterwards."""
    log = directory / f"{side.role}.log"
    with log.open("wb") as file:
        process = subprocess.Popen([*BOUND, *command[0]], env=command[1], cwd=directory, stdout=file, stderr=file)
    exporter = Exporter(side, process, port, log)

    def answers() -> bool:
        try:
            exporter.scrape()
        except (OSError, http.client.HTTPException):
            exporter.hang_up()
            return False
        return True

    try:
        wait_until(answers, f"{side.name} answers", 60)
        yield exporter
    finally:
        process.kill()
        process.wait()


class ServerWatch:
    """CPU time and connections of a server, from /proc: nothing is asked of the server for it."""

    def __init__(self, server: PostgresServer) -> None:
        self._pid = int((server.data / "postmaster.pid").read_text().split()[0])
        self._over = threading.Event()
        self.peaks: dict[str, int] = {}

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes, of those that have ended too."""
        return _ticks(self._pid, 4) + sum(_ticks(pid, 2) for pid in self._children())

    def connections(self) -> dict[str, int]:
        """Return how many connections each role has, as the processes' titles tell."""
        found: dict[str, int] = defaultdict(int)
        for pid in self._children():
            with contextlib.suppress(OSError, IndexError):
                words = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split()
                found[words[1]] += 1
        return found

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Note the most connections of each role meanwhile."""
        self._over.clear()
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _sample(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            for role, number in self.connections().items():
                self.peaks[role] = max(number, self.peaks.get(role, 0))

    def _children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()]


def _ticks(pid: int, fields: int) -> float:
    """Return seconds of user and system time; with four fields, of ended children too."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    return sum(map(int, stat.rpartition(")")[2].split()[11 : 11 + fields])) / _TICKS
