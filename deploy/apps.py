"""Our distributions as archives for a host: their source and the locked wheels for its Python."""

import functools
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.component import Archive
from deploy.topology import Endpoint

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "apps"
_building = threading.Lock()


@dataclass(frozen=True)
class App:
    """A distribution: its folders, each by its place on the import path, and its locked wheels, if it needs any."""

    name: str
    folders: tuple[tuple[str, str], ...]
    lock: str = ""


APPS = {
    app.name: app
    for app in (
        App(
            "pgstat_exporter",
            (("exporters/pgstat_exporter/src/pgstat_exporter", "pgstat_exporter"),),
            "exporters/pgstat_exporter/requirements.lock",
        ),
        App(
            "migrate",
            (
                ("sql_migrations/runner/src/messwarte_migrate", "messwarte_migrate"),
                ("sql_migrations/erp", "sql/erp"),
            ),
            "sql_migrations/runner/requirements.lock",
        ),
        App("backup", (("deploy/backup/host", "deploy/backup/host"),)),
        App("tasks", (("tasks/src/erp_tasks", "erp_tasks"),), "tasks/requirements.lock"),
        App(
            "erp",
            (("erp", "erp"), ("exporters/erp_metrics/src/erp_metrics", "erp_metrics")),
            "erp/requirements.lock",
        ),
    )
}


class AppError(Exception):
    """Why a distribution's archive could not be made."""


def archive(name: str, python: str, machine: str) -> Archive:
    """Return a distribution's archive for hosts with this Python (`3.13`) and machine (`x86_64`)."""
    key = _key(APPS[name], python, machine)
    return Archive(f"/opt/messwarte/{name}/{key}", functools.partial(_make, APPS[name], key, python, machine))


def make_all(python: str, machine: str) -> None:
    """Make the archives of all distributions ahead of a deploy. Raises AppError."""
    for name in APPS:
        archive(name, python, machine).make()


def current(name: str) -> str:
    """Return the folder on a host that a unit puts on PYTHONPATH."""
    return f"/opt/messwarte/{name}/current"


def database(endpoint: Endpoint, component: str) -> str:
    """Return how an application of a component reaches the ERP's database (libpq keywords, without the password)."""
    check = f" sslmode=verify-full sslrootcert=/etc/messwarte/{component}/current/ca.pem" if endpoint.tls else ""
    return f"host={endpoint.address} port={endpoint.port} dbname=erp user=erp_app{check}"


def run(target: str, arguments: str, user: str | None = None) -> str:
    """Return a shell command that runs one of our modules from its folder on a host."""
    prefix = f"runuser -u {user} -- env" if user else "env"
    return f"{prefix} PYTHONPATH={target} PYTHONDONTWRITEBYTECODE=1 python3 -P -m {arguments}"


def _sources(app: App) -> Iterator[tuple[Path, str]]:
    for folder, name in app.folders:
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT / folder)
            hidden = any(part.startswith((".", "__pycache__")) or part in {"build", "dist"} for part in inside.parts)
            if path.is_file() and not hidden and not any(part.endswith(".egg-info") for part in inside.parts):
                yield path, f"{name}/{inside}"


def _key(app: App, python: str, machine: str) -> str:
    digest = hashlib.sha256(f"{python} {machine}".encode())
    digest.update((ROOT / app.lock).read_bytes() if app.lock else b"")
    for path, name in _sources(app):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _make(app: App, key: str, python: str, machine: str) -> Path:
    made = CACHE / f"{app.name}-{key}.tar.gz"
    with _building:
        if not made.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                tree = Path(scratch) / "tree"
                if app.lock:
                    _install_wheels(app, tree, python, machine)
                for path, name in _sources(app):
                    (tree / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, tree / name)
                partial = Path(scratch) / "archive"
                with tarfile.open(partial, "w:gz", compresslevel=1) as tar:
                    tar.add(tree, ".", filter=_owned_by_root)
                partial.rename(made)
    return made


def _install_wheels(app: App, tree: Path, python: str, machine: str) -> None:
    platforms = [f"--platform=manylinux{tag}_{machine}" for tag in ("2014", "_2_17", "_2_28", "_2_34")]
    tag = f"cp{python.replace('.', '')}"
    abis = [f"--abi={abi}" for abi in (tag, "abi3", "none")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-compile", "--only-binary=:all:", "--require-hashes", f"--python-version={python}"]
    command += ["--implementation=cp", *abis, *platforms, f"--target={tree}", "-r", str(ROOT / app.lock)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise AppError(f"the wheels of {app.name} could not be had (Python {python}, {machine}):\n{run.stderr.strip()}")


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member
