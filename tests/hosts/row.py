"""A change by hand to a deployed host, and what has to follow."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A change by hand, what the check has to say of it (shell patterns, by component), and when it is healed.

    `restarts` are the units that a deploy may start anew to heal it.
    """

    change: str
    said: dict[str, list[str]]
    healed: str
    restarts: str = ""
