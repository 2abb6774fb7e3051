"""Alertmanager: routes, receivers and templates as alert_rules renders them, secrets as credentials."""

from alert_rules import alertmanager
from deploy.component import Component, Door, File, Unit, curl, render
from deploy.plan import Plan


def component(plan: Plan) -> Component | None:
    """Return Alertmanager for the monitoring host."""
    settings = plan.settings.alertmanager
    if settings.mode != "deployed" or not plan.here("monitoring"):
        return None
    secrets = _credentials(plan)
    rendered = alertmanager.render(
        email=alertmanager.Email(**settings.email.model_dump()) if settings.email else None,
        teams=alertmanager.Teams() if settings.teams is not None else None,
        slack=alertmanager.Slack(**settings.slack.model_dump()) if settings.slack else None,
        grafana_url=plan.grafana_url,
        interval_factor=plan.settings.timing.interval_factor,
    )
    drop_in = render("alertmanager/templates/drop-in.conf.j2", credentials=sorted(secrets))
    local = "http://127.0.0.1:9093"
    return Component(
        "alertmanager",
        packages=("prometheus-alertmanager", "curl"),
        files=(
            File("drop-in.conf", drop_in),
            *(File(path, text) for path, text in rendered.items()),
            *(File(f"credentials/{name}", value, 0o600) for name, value in secrets.items()),
        ),
        links={"/etc/systemd/system/prometheus-alertmanager.service.d/messwarte.conf": "drop-in.conf"},
        folders={"/var/lib/prometheus/alertmanager": "755 prometheus:prometheus"},
        units=(Unit("prometheus-alertmanager.service", reload_for=tuple(rendered)),),
        validate=("amtool check-config alertmanager.yml",),
        ready=(
            curl(f"{local}/-/ready"),
            f"curl -fsS --max-time 2 {local}/metrics | grep -qx 'alertmanager_config_last_reload_successful 1'",
        ),
        ports=(9093,),
        doors=(Door(9093, people=True),),
        url=f"{plan.url(9093)}/api/v2/status",
        detail=_receivers(plan),
    )


def _credentials(plan: Plan) -> dict[str, str]:
    settings = plan.settings.alertmanager
    wanted = {
        "smtp_password": settings.email and settings.email.username,
        "teams_webhook_url": settings.teams,
        "slack_api_url": settings.slack,
    }
    return plan.secrets.require(*(name for name, used in wanted.items() if used))


def _receivers(plan: Plan) -> str:
    settings = plan.settings.alertmanager
    names = [name for name in ("email", "teams", "slack") if getattr(settings, name) is not None]
    return f"alerts by {', '.join(names)}" if names else "no receiver is set: alerts reach nobody"
