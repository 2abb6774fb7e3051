"""Log lines as key=value on standard error."""

import sys
import threading
from datetime import UTC, datetime

_one_at_a_time = threading.Lock()


def write(level: str, message: str, **values: object) -> None:
    """Write one line: time, level, message, then further values."""
    pairs = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "msg": message,
        **values,
    }
    line = " ".join(f"{key}={_quote(str(value))}" for key, value in pairs.items())
    with _one_at_a_time:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the log


def _quote(value: str) -> str:
    if value and not any(character in ' "=\n' for character in value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
