"""Programs that a benchmark compares with, in an environment of their own made from a lock file."""

import hashlib
import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def programs(lock: Path) -> Path:
    """Return the folder of an environment's programs, made once from a lock file with hashes."""
    home = ROOT / ".cache" / f"{lock.stem}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (home / "complete").exists():
        venv.create(home, clear=True, with_pip=True)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "--only-binary=:all:", "-r", str(lock)], check=True)
        (home / "complete").touch()
    return home / "bin"
