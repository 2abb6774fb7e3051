"""What is asked of a host before anything is decided: one round trip, nothing changed."""

import json
import shlex
from pathlib import Path
from typing import Any

from pyinfra.api import FactBase

from deploy.plan import HostFacts

_PROGRAM = (Path(__file__).parent / "host" / "facts.py").read_text()


class Facts(FactBase[HostFacts]):
    """What decides about a host's files, and what can stand in the way of a deploy."""

    def command(self, url: str = "") -> str:
        """Return the command; `url` is what the host has to reach, if anything."""
        program = f"{_PROGRAM}\nmain({url!r})"
        return f"python3 -I -c {shlex.quote(program)}"

    def process(self, output: Any) -> HostFacts:
        """Return the facts that the program printed."""
        found = json.loads("\n".join(output))
        return HostFacts(**found | {"listeners": tuple(tuple(one) for one in found["listeners"])})
