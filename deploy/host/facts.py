"""Runs on the host: prints what the control machine asks before it decides. Standard library only, changes nothing."""

import json
import os
import platform
import re
import subprocess
import time
import urllib.request
from pathlib import Path


def reachable(url: str) -> bool:
    """Say whether a URL answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  the operator's own setting
            return True
    except OSError:
        return False


def free(path: str) -> tuple[int, int | None]:
    """Return the bytes and the inodes that a folder has left; None where its filesystem does not count inodes."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None


def listeners() -> list[tuple[str, int, str, str]]:
    """Return address, TCP port, program and systemd unit of everything that listens."""
    shown = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=False).stdout
    found = set()
    for line in shown.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        owner = re.search(r'\("([^"]+)",pid=(\d+)', line)
        program = (owner[1], _unit(owner[2])) if owner else ("an unknown program", "")
        found.add((address.partition("%")[0].strip("[]"), int(port), *program))
    return sorted(found)


def _unit(pid: str) -> str:
    try:
        groups = Path("/proc", pid, "cgroup").read_text()
    except OSError:
        return ""
    return next((part for part in reversed(groups.strip().split("/")) if part.endswith(".service")), "")


def main(url: str) -> None:
    """Print all facts as JSON."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    facts = {
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "debian": f"{release.get('ID', '')} {release.get('VERSION_ID', '')}".strip(),
        "root": os.geteuid() == 0,
        "clock": time.time(),
        "free": {path: free(path) for path in ("/etc", "/opt", "/var/lib", "/var/cache/apt")},
        "listeners": listeners(),
        "applied": sorted(path.name for path in Path("/etc/messwarte").glob("*/")),
        "grafana_there": Path("/etc/messwarte/grafana").is_dir(),
        "grafana_reachable": bool(url) and (Path("/var/lib/dpkg/info/grafana.list").exists() or reachable(url)),
    }
    print(json.dumps(facts))  # noqa: T201
