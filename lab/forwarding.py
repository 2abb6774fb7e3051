"""This machine's ip_forward: on while there is a lab, afterwards as it was before the first."""

from pathlib import Path

from lab.system import LabError

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def allow(note: Path) -> None:
    """Turn forwarding on; what it was is noted first, once per boot of this machine."""
    if _noted(note) is None:
        note.write_text(f"{_FORWARD.read_text().strip()} {_BOOT.read_text()}")
    _write("1")


def restore(note: Path) -> None:
    """Put back what was noted in this boot, if anything."""
    before = _noted(note)
    if before is not None:
        _write(before)
    note.unlink(missing_ok=True)


def _noted(note: Path) -> str | None:
    if not note.exists():
        return None
    value, *boot = note.read_text().split()
    # After a reboot of this machine the sysctl is what its own configuration made it.
    return value if boot in ([], [_BOOT.read_text().strip()]) else None


def _write(value: str) -> None:
    if _FORWARD.read_text().strip() == value:
        return
    try:
        _FORWARD.write_text(f"{value}\n")
    except OSError as error:
        raise LabError(f"cannot set {_FORWARD} to {value}, which a lab's network needs: {error.strerror}") from error
