"""The service: the exporters of a configuration, answered for until SIGTERM, changed by SIGHUP, watched by systemd."""

import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pgstat_exporter import __version__, config, log
from pgstat_exporter.config import Config, Enabled, Target
from pgstat_exporter.notify import notify, reloading, watchdog_seconds
from pgstat_exporter.reporter import Reporter
from pgstat_exporter.scrape import Exporter
from pgstat_exporter.strict import Problem
from pgstat_exporter.web import Server
from pgstat_exporter.web_config import Doorkeeper

# Background work takes the interpreter for so long at a time that a scrape beside it is not held up.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Loaded:
    """A configuration that was found to be right."""

    settings: Config
    collectors: Sequence[Enabled]


def load(path: Path) -> Loaded:
    """Read configuration and collectors. Raises Problem."""
    settings = config.load(path)
    return Loaded(settings, config.enabled(settings, config.collectors(settings), str(path)))


def _place(loaded: Loaded) -> tuple[str, int, str | None]:
    return loaded.settings.listen, loaded.settings.port, loaded.settings.web_config


class Exporters:
    """The servers of a configuration; what a new configuration does not change goes on with its data."""

    def __init__(self, loaded: Loaded) -> None:
        self.own: Exporter | None = None
        self.targets: dict[str, Exporter] = {}
        self.scrape_timeout = loaded.settings.scrape_timeout
        self.take(loaded)

    def take(self, loaded: Loaded) -> None:
        """Measure what a configuration says from now on."""
        before = [*filter(None, (self.own,)), *self.targets.values()]

        def exporter(target: Target, name: str = "") -> Exporter:
            same = (one for one in before if one.target == target and one.collectors == tuple(loaded.collectors))
            return next(same, None) or _started(target, loaded.collectors, name)

        own = loaded.settings.own()
        self.targets = {name: exporter(target, name) for name, target in loaded.settings.targets.items()}
        self.own = exporter(own) if own else None
        self.scrape_timeout = loaded.settings.scrape_timeout
        kept = {id(one) for one in self.all()}
        for one in before:
            if id(one) not in kept:
                one.close()

    def all(self) -> list[Exporter]:
        """Return the exporters that there are."""
        return [*filter(None, (self.own,)), *self.targets.values()]


def _started(target: Target, collectors: Sequence[Enabled], name: str) -> Exporter:
    exporter = Exporter(target, collectors, Reporter(name))
    exporter.slow.start()
    return exporter


class Service:
    """Serves from its start until it is told to stop; a database that is down is reported, never a reason to end."""

    def __init__(self, path: Path, loaded: Loaded) -> None:
        """Raises Problem for a wrong web configuration."""
        self._path = path
        self._place = _place(loaded)
        self._doorkeeper = Doorkeeper(loaded.settings.web_config)
        self._loaded = loaded
        self._wake = threading.Event()
        self._stop = self._reload = False

    def run(self) -> int:
        """Serve; return 0 after SIGTERM or SIGINT, 1 when it cannot listen or a part of it died."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        listen, port, _ = self._place
        exporters = Exporters(self._loaded)
        try:
            server = Server(listen, port, exporters, self._doorkeeper)
        except OSError as error:
            log.write("error", f"cannot listen on {listen} port {port}: {error.strerror}")
            return 1
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        log.write("info", "listening", address=listen, port=port, version=__version__)
        notify("READY=1")
        alive = self._watch(thread, exporters)
        notify("STOPPING=1")
        server.shutdown()
        server.server_close()
        for one in exporters.all():
            one.close()
        log.write("info" if alive else "error", "stopped" if alive else "a thread of the exporter died: stopped")
        return 0 if alive else 1

    def _signalled(self, number: int, _frame: object) -> None:
        self._stop |= number != signal.SIGHUP
        self._reload |= number == signal.SIGHUP
        self._wake.set()

    def _watch(self, server: threading.Thread, exporters: Exporters) -> bool:
        """Wait for signals; return False when a thread has died that nothing goes without."""
        seconds = watchdog_seconds()
        while not self._stop:
            if not server.is_alive() or any(one.slow.died() for one in exporters.all()):
                return False
            notify("WATCHDOG=1")
            self._wake.wait(seconds or 5.0)
            self._wake.clear()
            if self._reload:
                self._reload = False
                self._take_anew(exporters)
        return True

    def _take_anew(self, exporters: Exporters) -> None:
        reloading()
        try:
            loaded = load(self._path)
        except Problem as problem:
            log.write("error", f"the configuration before stays in force: {problem}")
        else:
            if _place(loaded) != self._place:
                log.write("warning", "a change of listen, port or web_config waits for a restart")
            exporters.take(loaded)
            log.write("info", "took up the new configuration")
        notify("READY=1")
