"""pgstat_exporter as a host gets it: its wheel and the packages of its lock file, nothing else of ours or of others."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import PostgresServer

DISTRIBUTION = Path(__file__).resolve().parents[2] / "exporters" / "pgstat_exporter"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an empty environment that holds the wheel and links to what the lock file names."""
    folder = tmp_path_factory.mktemp("alone")
    source = shutil.copytree(
        DISTRIBUTION, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    venv.create(folder / "venv", symlinks=True)
    target = folder / "venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", f"--target={target}"]
    subprocess.run([*install, *map(str, folder.glob("*.whl"))], check=True)
    for path in locked_packages():
        if not (target / path.name).exists():
            (target / path.name).symlink_to(path)
    return str(folder / "venv" / "bin" / "python")


def locked_packages() -> Iterator[Path]:
    """Yield the installed files and folders of the distributions in the lock file."""
    for name in re.findall(r"^([a-z0-9-]+)==", (DISTRIBUTION / "requirements.lock").read_text(), re.MULTILINE):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in {"..", "__pycache__"}}:
            yield Path(str(distribution.locate_file(top)))


def test_the_lock_file_names_no_compiled_driver_and_no_index() -> None:
    """Hosts use Debian's libpq5, and wheels are brought to them."""
    lock = (DISTRIBUTION / "requirements.lock").read_text()
    assert "psycopg==" in lock
    assert "binary" not in lock
    assert "://" not in lock


def test_wheel_and_lock_file_are_enough(python: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """The installed wheel holds its SQL, runs on libpq by itself and measures a real server."""
    config = tmp_path / "config.yml"
    config.write_text(f"dsn: {postgres.dsn()}\ncollectors: {{statements: {{enabled: false}}}}\n")
    for options in (["--offline"], []):
        command = [python, "-I", "-m", "pgstat_exporter", "check", *options, "--config", str(config)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^activity +ok: ", run.stdout, re.MULTILINE)
    where = "import pgstat_exporter as e, psycopg, sys; print(e.__file__, psycopg.pq.__impl__, 'click' in sys.modules)"
    shown = subprocess.run([python, "-I", "-c", where], capture_output=True, text=True, check=True).stdout
    assert "site-packages" in shown
    assert "python False" in shown
