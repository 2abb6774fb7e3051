"""Where numbers are kept: in this process's memory, or in files that prometheus-client sums over processes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

from erp_metrics.faults import fails_open

# Files beside prometheus-client's own, in its format and under names that its MultiProcessCollector takes for its own.
_OWN = "erpmetrics"
# Added and taken away again, it tells whether a number is where we think it is; a scrape meanwhile sees 0.
_TRACE = 5e-324


class Values(Protocol):
    """Numbers by position."""

    def __getitem__(self, position: int, /) -> float:
        """Return one."""

    def __setitem__(self, position: int, number: float, /) -> None:
        """Set one."""


class Store(Protocol):
    """Finds room for numbers that begin at 0."""

    def place(self, kind: str, keys: Sequence[str]) -> tuple[Values, tuple[int, ...]]:
        """Return numbers, and at which positions those of some keys are."""


class Memory:
    """The numbers of one process."""

    def place(self, _kind: str, keys: Sequence[str]) -> tuple[Values, tuple[int, ...]]:
        """Return a list of their own."""
        return [0.0] * len(keys), tuple(range(len(keys)))


class Shared:
    """The numbers of this process in mapped files: what was counted outlives it, and counting costs no system call.

    prometheus-client's own values cost several microseconds each, as they pack and copy both number and time stamp.
    """

    def __init__(self, directory: str) -> None:
        """Take PROMETHEUS_MULTIPROC_DIR; files of processes with the same number go on, gauges of theirs do not."""
        self._directory = Path(directory)
        if not self._directory.is_dir():
            raise RuntimeError(f"PROMETHEUS_MULTIPROC_DIR: there is no folder {directory}; nothing is measured")
        self._files: dict[str, MmapedDict] = {}
        self._path("gauge").unlink(missing_ok=True)
        bury(directory)

    def place(self, kind: str, keys: Sequence[str]) -> tuple[Values, tuple[int, ...]]:
        """Make room in the file of a kind. Raises RuntimeError when prometheus-client's format is not what we know."""
        file = self._files.get(kind)
        if file is None:
            file = self._files[kind] = MmapedDict(str(self._path(kind)))  # type: ignore[no-untyped-call]
        for key in keys:
            file.read_value(key)  # type: ignore[no-untyped-call]
        # A file that grows is mapped anew; what was placed before stays in the old mapping of the same file.
        values: Values = memoryview(file._m).cast("d")  # noqa: SLF001 - checked below
        at = tuple(file._positions[key] // 8 for key in keys)  # noqa: SLF001
        if not values[at[0]]:
            values[at[0]] = _TRACE
            seen = file.read_value(keys[0])[0]  # type: ignore[no-untyped-call]
            values[at[0]] = 0.0
            if seen != _TRACE:
                raise RuntimeError("prometheus-client keeps the numbers of processes otherwise than erp_metrics does")
        return values, at

    def _path(self, kind: str) -> Path:
        prefix = "gauge_livesum" if kind == "gauge" else kind
        return self._directory / f"{prefix}_{_OWN}_{os.getpid()}.db"


@fails_open
def bury(directory: str) -> None:
    """Remove the live gauges of dead processes: what one had checked out is no longer checked out."""
    for path in Path(directory).glob("gauge_livesum_*.db"):
        pid = int(path.stem.rsplit("_", 1)[1])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]
            path.unlink(missing_ok=True)
        except PermissionError:
            continue
