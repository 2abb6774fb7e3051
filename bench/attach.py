"""From `attach` to the first panel: a PostgreSQL by plain apt on one host, our monitoring on another, both new."""

import argparse
import contextlib
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import dashboards
from bench.report import Target, as_json, say
from lab import Lab, Machine
from lab.system import wait_until
from proof.access import Access
from proof.grafana import Grafana
from settings import Secrets

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
DATABASE = "kontor"
_LAB = "attach-bench"
_SECONDS = 300
# What an administrator's own PostgreSQL looks like: no library preloaded, a password, one line for the exporter's host.
_FOREIGN = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get update -q && apt-get install -y -q --no-install-recommends postgresql-17
cat > /etc/postgresql/17/main/conf.d/own.conf <<< "listen_addresses = '*'"
echo 'host all all samenet scram-sha-256' >> /etc/postgresql/17/main/pg_hba.conf
systemctl restart postgresql@17-main
runuser -u postgres -- createdb {DATABASE}
runuser -u postgres -- pgbench -i -q {DATABASE}
"""
_OFF = {name: {"mode": "off"} for name in ("redis", "tasks", "erp", "alertmanager")}


@dataclass(frozen=True)
class Attached:
    """A lab of hosts `foreign` and `monitoring`, with an inventory that names the second alone."""

    lab: Lab
    machines: dict[str, Machine]
    password: str

    @property
    def inventory(self) -> Path:
        """The inventory."""
        return self.lab.state / "monitoring.py"

    @property
    def settings_file(self) -> Path:
        """Its settings."""
        return self.lab.state / "monitoring.yml"

    @property
    def secrets_file(self) -> Path:
        """Its secrets."""
        return self.lab.state / "monitoring.secrets.yml"

    @property
    def dsn(self) -> str:
        """Where the administrator connects."""
        return f"host={self.machines['foreign'].address} user=postgres dbname={DATABASE}"

    def settings(self, **sections: Any) -> None:
        """Write the settings: Prometheus and Grafana deployed, all else off, unless it is said otherwise."""
        grafana = {"grafana": yaml.safe_load((ROOT / "inventories/lab.yml").read_text())["grafana"]}
        wanted = {"network": {"exposed": True}} | _OFF | {"postgresql": {"mode": "off"}} | grafana | sections
        self.settings_file.write_text(yaml.safe_dump(wanted))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command line, with the administrator's password on standard input."""
        command = [str(ROOT / "messwarte"), *arguments]
        return subprocess.run(
            command, cwd=ROOT, input=self.password, capture_output=True, text=True, check=False, timeout=600
        )

    def attach(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `attach postgresql`."""
        return self.run("attach", "postgresql", self.dsn, str(self.inventory), "--password-stdin", *arguments)

    def first_panel(self) -> float:
        """Attach, set what it prints, deploy, wait for a panel's figures as a viewer gets them; return the seconds."""
        begun = time.monotonic()
        printed = _must(self.attach())
        lines = printed.partition("settings, for ")[2].splitlines()[1:]
        self.settings(**yaml.safe_load("\n".join(line for line in lines if line.startswith("    "))))
        _must(self.run("deploy", str(self.inventory)))
        grafana = self.grafana()
        ((_, _, expression), *_) = [one for one in dashboards.queries() if one[0] == "postgresql"]
        wait_until(lambda: grafana.samples(dashboards.substitute(expression)) > 0, "the first panel has data", 120, 0.5)
        return time.monotonic() - begun

    def grafana(self) -> Grafana:
        """Return our Grafana as a viewer sees it."""
        viewer = ("viewer", Secrets(self.secrets_file).get("grafana_viewer"))
        url = f"https://{self.machines['monitoring'].address}:3000"
        return Grafana(Access.of(self.secrets_file).client(url, viewer))


@contextlib.contextmanager
def attached(name: str) -> Iterator[Attached]:
    """Boot both hosts and install what is not ours on one; in the end the lab is gone."""
    lab = Lab(name, STATE)
    lab.down(say)
    try:
        found = Attached(lab, lab.up(["foreign", "monitoring"], say), "the administrator's")
        foreign = found.machines["foreign"]
        foreign.succeed(f"bash -e <<'END'\n{_FOREIGN}\nEND", timeout=600)
        foreign.succeed(
            "runuser -u postgres -- psql -qc \"ALTER ROLE postgres PASSWORD 'the administrator''s'\"",
        )
        _write_inventory(found)
        found.settings()
        yield found
    finally:
        lab.down(say)


def _write_inventory(found: Attached) -> None:
    noted = json.loads((found.lab.state / "lab.json").read_text())
    data = {
        "ssh_user": noted["ssh_user"],
        "ssh_key": noted["ssh_key"],
        "ssh_known_hosts_file": noted["known_hosts"],
        "ssh_strict_host_key_checking": "yes",
        "settings": str(found.settings_file),
        "secrets": str(found.secrets_file),
    }
    address = found.machines["monitoring"].address
    host = ("monitoring", {"ssh_hostname": address, "address": address})
    found.inventory.write_text(f"all = ([{host!r}], {data!r})\nmonitoring = ['monitoring']\n")


def _must(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        raise RuntimeError(f"{done.args}: {done.stdout}{done.stderr}")
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark as root; return 1 when the target is missed."""
    parser = argparse.ArgumentParser(prog="bench attach", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    with attached(_LAB) as found:
        seconds = round(found.first_panel(), 1)
    targets = [Target("seconds from `attach` to the first panel", seconds, _SECONDS)]
    if options.json:
        versions = {"pyinfra": importlib.metadata.version("pyinfra")}
        print(as_json(versions, {"first panel": seconds}, targets))  # noqa: T201
    else:
        print(*targets, sep="\n")  # noqa: T201
    return 0 if all(target.ok for target in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
