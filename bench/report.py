"""How every benchmark answers: machine, versions, figures, and targets with their bounds."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """A figure that has a bound which it must not exceed."""

    name: str
    value: float
    bound: float

    @property
    def ok(self) -> bool:
        """Say whether the target is met."""
        return self.value <= self.bound

    def __str__(self) -> str:
        """Return the line that people read."""
        return f"{self.name}: {self.value:g}, at most {self.bound:g}: {'met' if self.ok else 'MISSED'}"


def say(line: str) -> None:
    """Show progress on standard error; standard output is the answer's."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def as_json(versions: Mapping[str, str], figures: Mapping[str, Any], targets: Sequence[Target]) -> str:
    """Return the one object that `--json` prints."""
    answer = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {"python": platform.python_version(), **versions},
        "figures": figures,
        "targets": [vars(target) | {"ok": target.ok} for target in targets],
    }
    return json.dumps(answer, indent=2, ensure_ascii=False)
