"""erp_metrics as an ERP gets it: its wheel in an empty environment, prometheus-client, and nothing else."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.integration.conftest import free_port

DISTRIBUTION = Path(__file__).resolve().parents[2] / "exporters" / "erp_metrics"

APPLICATION = """
import asyncio, sys, urllib.request
import erp_metrics
assert "site-packages" in erp_metrics.__file__, erp_metrics.__file__

async def app(scope, receive, send):
    with erp_metrics.query("none here"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

app = erp_metrics.instrument(app, metrics_port=int(sys.argv[1]))
sent = []
async def send(message): sent.append(message)
asyncio.run(app({"type": "http", "method": "GET", "path": "/x", "headers": []}, None, send))
assert len(sent) == 2
print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics").read().decode())
print("modules:", *sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an empty environment that holds the wheel and a link to prometheus-client."""
    folder = tmp_path_factory.mktemp("alone")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    source = shutil.copytree(DISTRIBUTION, folder / "source", ignore=ignored)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    venv.create(folder / "venv", symlinks=True)
    target = folder / "venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", f"--target={target}"]
    subprocess.run([*install, *map(str, folder.glob("*.whl"))], check=True)
    client = importlib.metadata.distribution("prometheus-client")
    (target / "prometheus_client").symlink_to(Path(str(client.locate_file("prometheus_client"))))
    return str(folder / "venv" / "bin" / "python")


def test_it_needs_prometheus_client_and_nothing_else() -> None:
    """In its metadata and in its lock file."""
    lock = (DISTRIBUTION / "requirements.lock").read_text()
    assert re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE) == ["prometheus-client"]
    assert "://" not in lock


def test_the_wheel_measures_an_application_without_any_database(python: str) -> None:
    command = [python, "-I", "-c", APPLICATION, str(free_port())]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 'erp_http_requests_total{endpoint="unmatched",method="GET",status="200"} 1.0' in run.stdout
    assert "erp_db_active_connections 0.0" in run.stdout
    modules = run.stdout.splitlines()[-1].removeprefix("modules: ").split()
    assert set(modules) - {"__main__", "__mp_main__", "sitecustomize"} == {"erp_metrics", "prometheus_client"}


def test_without_prometheus_client_the_application_still_runs(python: str, tmp_path: Path) -> None:
    """Even a broken installation breaks nothing."""
    (tmp_path / "prometheus_client").mkdir()
    (tmp_path / "prometheus_client" / "__init__.py").write_text("raise ImportError('gone')")
    code = "import erp_metrics; app = object(); assert erp_metrics.instrument(app) is app; print('runs')"
    environment = {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (run.returncode, run.stdout) == (0, "runs\n"), run.stderr
    assert "nothing is measured; the application goes on without" in run.stderr
    assert "gone" in run.stderr


def test_readme_shows_the_two_lines() -> None:
    """They are what the test above runs, but for the port."""
    lines = "import erp_metrics\nerp_metrics.instrument(app, metrics_port=8001)\n"
    assert lines in (DISTRIBUTION / "README.md").read_text()
