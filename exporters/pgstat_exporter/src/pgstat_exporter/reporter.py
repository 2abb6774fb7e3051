"""What the log is told of a server: a fault once when it begins, not at every scrape, and its end."""

from collections.abc import Mapping

from pgstat_exporter import log
from pgstat_exporter.collect import Outcome

_SERVER = "database"


class Reporter:
    """Remembers what it said of a server; `target` is the server's name in the configuration, empty for the dsn's."""

    def __init__(self, target: str = "") -> None:
        self._labels = {"target": target} if target else {}
        self._said: dict[str, str] = {}

    def report(self, trouble: str, outcomes: Mapping[str, Outcome]) -> None:
        """Log what has changed: why the server does not answer, or how each collector ended."""
        self._tell(_SERVER, "error", trouble)
        # A server that is down is one line, not one for each collector.
        for place, outcome in {} if trouble else outcomes.items():
            if outcome.skipped and outcome.detail:
                self._tell(place, "info", f"is skipped: {outcome.detail}")
            else:
                self._tell(place, "warning", outcome.detail)

    def _tell(self, place: str, level: str, what: str) -> None:
        if what and not self._said.get(place):
            log.write(level, f"{place}: {what}", **self._labels)
        elif not what and self._said.get(place):
            log.write("info", f"{place}: well again", **self._labels)
        self._said[place] = what
