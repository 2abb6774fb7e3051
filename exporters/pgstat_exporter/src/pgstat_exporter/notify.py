"""What systemd is told: that the service is ready, reloads, stops, and is alive (sd_notify(3))."""

import os
import socket
import time


def notify(*states: str) -> None:
    """Send states to systemd; nothing where it does not ask for them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
        # A leading @ stands for the abstract namespace.
        wire.sendto("\n".join(states).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def reloading() -> None:
    """Say that a reload begins; `notify("READY=1")` says that it is over."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_seconds() -> float | None:
    """Return how often systemd wants to hear that the service is alive: half of what it allows; None for never."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    asked = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(allowed) / 2e6 if allowed.isdigit() and int(allowed) and asked else None
