"""Grafana: own secret key and passwords, data source, dashboards and home dashboard provisioned."""

from deploy import apps
from deploy.component import Archive, Component, Door, File, Unit, curl, render
from deploy.grafana import source
from deploy.plan import Plan

_T = "grafana/templates"
_DASHBOARDS = apps.ROOT / "dashboards/generated"
_UNIT = "grafana-server.service"
DOOR = Door(3000, people=True, login=False)
_PACKAGED_HOME = "/usr/share/grafana"


def component(plan: Plan) -> Component | None:
    """Return Grafana for the monitoring host; None where it is off or cannot be had."""
    if not plan.grafana or plan.grafana_missing or not plan.here("monitoring"):
        return None
    package = source.package(plan.settings.grafana.source)
    archives: tuple[Archive, ...] = ()
    home = _PACKAGED_HOME
    if package:
        archive = Archive(f"/opt/messwarte/grafana/{package.key}", lambda: package.path)
        archives = (archive,)
        home = _PACKAGED_HOME if package.is_deb else f"{archive.target}/{package.top}"
    own_unit = home != _PACKAGED_HOME
    files = _files(plan, home, own_unit)
    local = "http://127.0.0.1:3000"
    unit_link = {f"/etc/systemd/system/{_UNIT}": _UNIT} if own_unit else {}
    return Component(
        "grafana",
        packages=("curl", "ca-certificates", "fontconfig-config"),
        repository_packages=() if package else ("grafana",),
        users=('u grafana - "Grafana" /var/lib/grafana',) if own_unit else (),
        archives=archives,
        folders={"/var/lib/grafana": "750 grafana:grafana"} if own_unit else {},
        before=() if package else source.add_repository(plan.settings.grafana.source.repository),
        files=files,
        links=unit_link | {f"/etc/systemd/system/{_UNIT}.d/messwarte.conf": "drop-in.conf"},
        units=(Unit(_UNIT),),
        # The accounts need a Grafana that answers; its first start makes the database.
        after=(
            f"for i in $(seq 600); do {curl(local + '/api/health')} 2>&1 && break; sleep 0.1; done",
            "python3 -I accounts.py",
        ),
        ready=(curl(f"{local}/api/health"),),
        probes={"accounts": "python3 -I /etc/messwarte/grafana/current/probe.py"},
        timeout=90,
        ports=(3000,),
        doors=(DOOR,),
        url=plan.grafana_url,
        detail="users admin and viewer",
    )


def _files(plan: Plan, home: str, own_unit: bool) -> tuple[File, ...]:
    credentials = f"/run/credentials/{_UNIT}"
    scrape = round(15 * plan.settings.timing.interval_factor, 3)
    cli = [
        f"{home}/bin/grafana",
        "cli",
        f"--homepath={home}",
        "--config=/etc/messwarte/grafana/current/grafana.ini",
    ]
    texts = {
        "grafana.ini": render(f"{_T}/grafana.ini.j2", url=plan.grafana_url, credentials=credentials),
        "drop-in.conf": render(f"{_T}/drop-in.conf.j2", home=home, own_unit=own_unit),
        "accounts.py": render(f"{_T}/accounts.py.j2", cli=cli),
        "probe.py": render(f"{_T}/probe.py.j2"),
        "provisioning/datasources/messwarte.yml": render(
            f"{_T}/datasources.yml.j2",
            prometheus=plan.settings.prometheus.existing.address
            if plan.settings.prometheus.existing
            else "127.0.0.1:9090",
            scrape_interval=f"{scrape:g}s",
        ),
        "provisioning/dashboards/messwarte.yml": render(f"{_T}/dashboards.yml.j2"),
        # What reviewers saw; `dashboards --check` compares it with what builds it.
        **{f"dashboards/{path.name}": path.read_text("utf-8") for path in sorted(_DASHBOARDS.glob("*.json"))},
    }
    if own_unit:
        texts[_UNIT] = render(f"{_T}/grafana-server.service.j2", home=home)
    secrets = {
        "admin_password": plan.secrets.get("grafana_admin"),
        "viewer_password": plan.secrets.get("grafana_viewer"),
        "secret_key": plan.secrets.get("grafana_secret_key"),
    }
    return (
        *(File(path, text) for path, text in texts.items()),
        *(File(f"credentials/{name}", value, 0o600) for name, value in secrets.items()),
    )
