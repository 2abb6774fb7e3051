"""Log lines as key=value on standard error."""

import contextlib
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
    # On a full disk, or when the reader is gone, the measuring goes on.
    with _one_at_a_time, contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the log


def _quote(value: str) -> str:
    if value and value.isprintable() and not any(character in ' "=' for character in value):
        return value
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    # Names can hold what a terminal obeys.
    return '"' + "".join(one if one.isprintable() else repr(one)[1:-1] for one in text) + '"'
