"""From pyinfra's inventory to a plan: settings, secrets and facts of one host."""

import json
import shlex
from pathlib import Path
from typing import Any

from pyinfra.api import FactBase

from deploy.grafana import source
from deploy.plan import HostFacts, Plan
from deploy.topology import Topology, settings_of
from settings import Secrets, Settings, SettingsError

_FACTS = """
import json, os, platform, urllib.request
def reachable(url):
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
url = {url!r}
release = platform.freedesktop_os_release()
print(json.dumps({{
    "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    "python": ".".join(platform.python_version_tuple()[:2]),
    "machine": platform.machine(),
    "debian": release.get("ID", "") + " " + release.get("VERSION_ID", ""),
    "grafana_there": os.path.isdir("/etc/messwarte/grafana"),
    "grafana_reachable": bool(url) and (os.path.exists("/var/lib/dpkg/info/grafana.list") or reachable(url)),
}}))
"""


class Facts(FactBase[Any]):
    """Memory, Python, machine and release of a host, and whether it has Grafana or can reach a URL; one round trip."""

    def command(self, url: str = "") -> str:
        """Return the command; it changes nothing on the host."""
        return f"python3 -I -c {shlex.quote(_FACTS.format(url=url))}"

    def process(self, output: Any) -> Any:
        """Return the JSON that the program printed."""
        return json.loads("\n".join(output))


def make_plan(host: Any, inventory: Any) -> Plan:
    """Return what decides about one host. Raises SettingsError before anything is touched."""
    settings_file, settings = settings_of(host.data)
    topology = Topology.of(inventory, settings)
    node = next(node for node in topology.nodes if node.name == host.name)
    from_repository = _wants_repository(settings) and "monitoring" in node.groups
    url = f"{settings.grafana.source.repository}/gpg.key" if from_repository else ""
    found = host.get_fact(Facts, url=url)
    facts = HostFacts(found["memory"], found["python"], found["machine"], found["debian"])
    if facts.debian != "debian 13":
        raise SettingsError(f"{host.name} runs {facts.debian or 'an unknown system'}; Messwarte deploys to Debian 13")
    secrets = Secrets(Path(host.data.get("secrets") or settings_file.with_suffix(".secrets.yml")))
    reachable = found["grafana_reachable"] or not url
    return Plan(settings, secrets, topology, node, facts, *_grafana(settings, reachable, found["grafana_there"]))


def _wants_repository(settings: Settings) -> bool:
    return settings.grafana.mode == "deployed" and source.package(settings.grafana.source) is None


def _grafana(settings: Settings, reachable: bool, there: bool) -> tuple[bool, str]:
    """Return whether there is a Grafana after this run, and, where its package cannot be had, the reason."""
    if settings.grafana.mode == "off":
        return False, ""
    if reachable:
        return True, ""
    return there, (
        f"Grafana {'was left as it is' if there else 'was not deployed'}: {settings.grafana.source.repository} cannot "
        "be reached from the monitoring host. Set `grafana.source.repository` to a mirror, or `grafana.source.package` "
        "to a package file."
    )
