"""Where systemd runs this machine, a lab host is a transient unit: systemd owns the control groups, and restarts it."""

from pathlib import Path

from lab.system import run


def in_charge() -> bool:
    """Say whether systemd is this machine's init."""
    return Path("/run/systemd/system").is_dir()


def start(unit: str, description: str, log: Path, restart_status: int) -> list[str]:
    """Return the command before the command that a unit shall run, again each time that it ends with one status."""
    properties = {
        "Delegate": "yes",
        "RestartForceExitStatus": str(restart_status),
        "StartLimitIntervalSec": "0",
        # Stopping one is a power cut.
        "KillSignal": "SIGKILL",
        "StandardOutput": f"append:{log}",
        "StandardError": f"append:{log}",
    }
    options = [f"--property={name}={value}" for name, value in properties.items()]
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={unit}",
        f"--description={description}",
        *options,
        "--",
    ]


def active(unit: str) -> bool:
    """Say whether a unit runs or is about to."""
    return in_charge() and run(["systemctl", "is-active", unit], check=False).stdout.strip() in {
        "active",
        "activating",
        "reloading",
    }


def stop(pattern: str) -> None:
    """Stop the units of a name or pattern, if any, and forget their failures."""
    if in_charge():
        for verb in ("stop", "reset-failed"):
            run(["systemctl", verb, pattern], check=False)
