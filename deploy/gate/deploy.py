"""The gate: nginx at each host's own address lets in over TLS whoever has a password, and passes on to loopback."""

from collections.abc import Iterable

from deploy.component import Component, Door, File, Unit, render
from deploy.grafana import deploy as grafana
from deploy.plan import Plan
from settings import certificates

_T = "gate/templates"
_UNIT = "messwarte-gate.service"
_USER = "messwarte-gate"
# Who may pass a door that asks for a password: Prometheus where it scrapes, and the operator everywhere.
SCRAPER, OPERATOR = "prometheus", "operator"


def component(plan: Plan, others: Iterable[Component]) -> Component | None:
    """Return the gate in front of the other components of a host; none where nothing is to be reached from outside."""
    doors = doors_of(plan, others)
    passed = [door for door in doors if door.protocol != "own"]
    if not plan.topology.exposed or not passed:
        return None
    configuration = render(
        f"{_T}/nginx.conf.j2",
        address=plan.node.address,
        http=[door for door in passed if door.protocol == "http"],
        tcp=[door for door in passed if door.protocol == "tcp"],
    )
    people = {OPERATOR: plan.secrets.bcrypt("gate_operator")}
    users = {"scrapers": people | {SCRAPER: plan.secrets.bcrypt("gate_prometheus")}, "people": people}
    until = certificates.ends(plan.certificate.chain)
    files = (
        File("nginx.conf", configuration),
        *(File(f"users/{name}", _htpasswd(known), 0o640, f"root:{_USER}") for name, known in users.items()),
        File("tls/host.pem", plan.certificate.chain),
        File("tls/host.key", plan.certificate.key, 0o640, f"root:{_USER}"),
    )
    return Component(
        "gate",
        packages=("nginx", "libnginx-mod-stream"),
        idle=("nginx.service",),
        users=(f'u {_USER} - "Lets in over TLS"',),
        files=(*files, File(_UNIT, render(f"{_T}/{_UNIT}.j2"))),
        links={f"/etc/systemd/system/{_UNIT}": _UNIT},
        units=(Unit(_UNIT, reload_for=tuple(file.path for file in files)),),
        # Paths in the configuration are relative to `-p`; the temporary ones are made before the test ends.
        validate=(
            f"install -d -o {_USER} -g {_USER} /run/{_USER}",
            f"runuser -u {_USER} -- /usr/sbin/nginx -t -q -p . -c nginx.conf -e stderr -g 'pid /run/{_USER}/test.pid;'",
        ),
        ready=(f"timeout 2 bash -c '</dev/tcp/{plan.node.address}/{passed[0].port}'",),
        ports=tuple(door.port for door in passed),
        listens=(plan.node.address,),
        detail=f"TLS at {plan.node.address} with a certificate until {until:%Y-%m-%d}",
    )


def doors_of(plan: Plan, others: Iterable[Component]) -> list[Door]:
    """Return every door of a host that somebody needs, also those of what is there without being described."""
    found = [door for part in others for door in part.doors]
    if plan.settings.erp.mode == "existing" and plan.here("app"):
        found.append(Door(plan.settings.erp.metrics_port))
    if plan.grafana_kept:
        found.append(grafana.DOOR)
    # A broker whose clients are all on its own host stays on loopback; Prometheus scrapes every host through its gate.
    needed = [door for door in found if door.protocol == "http" or set(plan.topology.members(*door.to)) - {plan.node}]
    return sorted(needed, key=lambda door: door.port)


def scraper(plan: Plan) -> tuple[File, ...]:
    """Return what Prometheus needs to pass the gates of all hosts."""
    return (
        File("ca.pem", plan.authority),
        File("credentials/scrape_password", plan.secrets.get("gate_prometheus"), 0o600),
    )


def _htpasswd(verifiers: dict[str, str]) -> str:
    return "".join(f"{name}:{verifier}\n" for name, verifier in verifiers.items())
