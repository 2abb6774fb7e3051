"""The demo ERP as processes: its data, its server, its workload."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

import erp_metrics
from tests.integration.conftest import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
# As on a host: the package's parent and the library lie on the import path.
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{Path(erp_metrics.__file__).resolve().parents[1]}"}


def erp(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of the ERP to its end."""
    command = [sys.executable, "-P", "-m", "erp", *arguments]
    return subprocess.run(
        command, env=ENVIRONMENT | environment, cwd="/", capture_output=True, text=True, check=False, timeout=300
    )


class Server:
    """A server process, its public port and its metrics' port."""

    def __init__(self, dsn: str, directory: Path, **environment: str) -> None:
        """Start it on free ports; `ready` waits for it."""
        self.ports = free_port(), free_port()
        self.log = directory / "server.log"
        settings = {"ERP_DATABASE": dsn, "ERP_PORT": str(self.ports[0]), "ERP_METRICS_PORT": str(self.ports[1])}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "erp", "serve"],
                env=ENVIRONMENT | settings | environment,
                cwd="/",
                stdout=log,
                stderr=log,
            )
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.http = httpx.Client(base_url=self.url, timeout=40, trust_env=False)

    def ready(self, *statuses: int) -> "Server":
        """Wait until its health is one of some statuses (200)."""

        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return self.http.get("/healthz").status_code in (statuses or (200,))
            except httpx.TransportError:
                return False

        wait_until(answers, f"the server's health is {statuses or 200}")
        return self

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON of a page."""
        return self.http.get(path, params=parameters).raise_for_status().json()

    def samples(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with some labels."""
        text = httpx.get(f"http://127.0.0.1:{self.ports[1]}/metrics", trust_env=False).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def stop(self) -> int:
        """End it; return its exit status."""
        self.http.close()
        self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
