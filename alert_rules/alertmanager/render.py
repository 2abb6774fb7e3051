"""Renders Alertmanager's configuration and its message templates from the settings."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from alert_rules import runbook
from alert_rules.limits import duration
from settings.values import URL

_HERE = Path(__file__).parent

# Seconds. Repeats are multiples of the group interval, which also limits how long one delivery may be tried.
_GROUP_WAIT, _GROUP_INTERVAL = 30, 300
_REPEATS = {"critical": 12, "warning": 48, "info": 288}
# Every hour: whoever misses two messages knows within two hours that alerting is broken, and 24 a day can still be
# filed by a mail rule (X-Messwarte-Alert). A faster beat is for a machine that listens, not for a mailbox.
_HEARTBEAT_REPEAT = 12


class _Dumper(yaml.SafeDumper):
    """Writes everything out: anchors would make the file hard to read."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  PyYAML's signature
        return True


@dataclass(frozen=True)
class Email:
    """Alerts by e-mail; with a username, the password is the credential `smtp_password`."""

    smarthost: str
    sender: str
    recipients: Sequence[str]
    require_tls: bool = True
    username: str | None = None


@dataclass(frozen=True)
class Teams:
    """Alerts to a Teams channel; the workflow's address is the credential `teams_webhook_url`."""


@dataclass(frozen=True)
class Slack:
    """Alerts to Slack; the webhook's address is the credential `slack_api_url`."""

    channel: str


def render(
    *,
    email: Email | None = None,
    teams: Teams | None = None,
    slack: Slack | None = None,
    grafana_url: str | None = None,
    interval_factor: float = 1.0,
    credentials: str = "/run/credentials/prometheus-alertmanager.service",
) -> dict[str, str]:
    """Return Alertmanager's files by relative path; without any receiver the configuration is valid still.

    Raises ValueError for an address of Grafana that could not stand in a link, or a factor not above 0.
    """
    if grafana_url is not None and not URL.fullmatch(grafana_url):
        raise ValueError(f"grafana_url must be an address such as https://grafana.example.com, not {grafana_url!r}")
    if interval_factor <= 0:
        raise ValueError(f"interval_factor must be above 0, not {interval_factor}")
    people = {
        "email_configs": [_email(email)] if email else [],
        "msteamsv2_configs": [_teams(credentials)] if teams else [],
        "slack_configs": [_slack(slack, credentials)] if slack else [],
    }
    configuration = {
        "global": _global(email, credentials),
        "templates": ["templates/*.tmpl"],
        "route": _route(interval_factor),
        "inhibit_rules": [_worse_is_enough()],
        "receivers": [_receiver("people", people), _receiver("heartbeat", _heartbeat(people))],
    }
    text: str = yaml.dump(configuration, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    head = "# Rendered from the settings; templates/ holds what the messages say.\n"
    return {
        "alertmanager.yml": head + text,
        "templates/messwarte.tmpl": _templates(grafana_url, with_runbook=email is None),
    }


def _global(email: Email | None, credentials: str) -> dict[str, Any]:
    if email is None:
        return {"resolve_timeout": "5m"}
    login = {"smtp_auth_username": email.username, "smtp_auth_password_file": f"{credentials}/smtp_password"}
    return {
        "resolve_timeout": "5m",
        "smtp_smarthost": email.smarthost,
        "smtp_from": email.sender,
        "smtp_require_tls": email.require_tls,
    } | (login if email.username else {})


def _route(factor: float) -> dict[str, Any]:
    interval = max(1, round(_GROUP_INTERVAL * 1000 * factor))

    def times(wait: float, repeat: int) -> dict[str, str]:
        return {
            "group_wait": duration(wait * 1000 * factor),
            "group_interval": duration(interval),
            "repeat_interval": duration(interval * repeat),
        }

    heartbeat = {
        "receiver": "heartbeat",
        "matchers": ['alertname="DeadMansSwitch"'],
        **times(0, _HEARTBEAT_REPEAT),
    }
    by_severity = [
        {"receiver": "people", "matchers": [f'severity="{severity}"'], **times(wait, _REPEATS[severity])}
        for severity, wait in (("critical", _GROUP_WAIT / 3), ("info", _GROUP_WAIT))
    ]
    return {
        "receiver": "people",
        "group_by": ["alertname"],
        **times(_GROUP_WAIT, _REPEATS["warning"]),
        "routes": [heartbeat, *by_severity],
    }


def _worse_is_enough() -> dict[str, Any]:
    # Labels that both alerts lack count as equal, so whatever tells two alerts of one name apart has to stand here.
    return {
        "source_matchers": ['severity="critical"'],
        "target_matchers": ['severity=~"warning|info"'],
        "equal": ["alertname", "host", "query_name", "endpoint"],
    }


def _receiver(name: str, channels: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {"name": name} | {kind: configs for kind, configs in channels.items() if configs}


def _heartbeat(people: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Return the first channel that there is: an hourly message in each of them would be noise."""
    for kind, configs in people.items():
        if configs:
            return {kind: [config | {"send_resolved": False} for config in configs]}
    return {}


def _email(email: Email) -> dict[str, Any]:
    return {
        "to": ", ".join(email.recipients),
        "send_resolved": True,
        "headers": {
            "Subject": '{{ template "messwarte.title" . }}',
            "Auto-Submitted": "auto-generated",
            "X-Messwarte-Alert": "{{ .CommonLabels.alertname }}",
            "X-Messwarte-Severity": "{{ .CommonLabels.severity }}",
            "X-Messwarte-Status": "{{ .Status }}",
        },
        "html": '{{ template "messwarte.html" . }}',
        "text": '{{ template "messwarte.text" . }}',
    }


def _teams(credentials: str) -> dict[str, Any]:
    return {
        "webhook_url_file": f"{credentials}/teams_webhook_url",
        "send_resolved": True,
        "title": '{{ template "messwarte.title" . }}',
        "text": '{{ template "messwarte.teams" . }}',
    }


def _slack(slack: Slack, credentials: str) -> dict[str, Any]:
    return {
        "api_url_file": f"{credentials}/slack_api_url",
        "channel": slack.channel,
        "send_resolved": True,
        "color": '{{ template "messwarte.color" . }}',
        "title": '{{ template "messwarte.title" . }}',
        "title_link": '{{ template "messwarte.title_link" . }}',
        "text": '{{ template "messwarte.slack" . }}',
        "fallback": '{{ template "messwarte.title" . }}',
    }


def _templates(grafana_url: str | None, *, with_runbook: bool) -> str:
    # Alertmanager's own templates keep the usual braces; ours are resolved here.
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        autoescape=False,  # noqa: S701  Alertmanager escapes what goes into HTML
    )
    texts = runbook.runbooks()
    return environment.get_template("messwarte.tmpl.j2").render(
        grafana_url=grafana_url,
        plain={name: _literal(runbook.plain(text)) for name, text in texts.items()},
        html={name: _literal(runbook.as_html(text)) for name, text in texts.items()},
        next={
            channel: {name: _literal(_next(text, channel, whole=with_runbook)) for name, text in texts.items()}
            for channel in ("teams", "slack")
        },
    )


def _next(text: str, channel: str, *, whole: bool) -> str:
    """Return what a chat message says about what to do, in the channel's own kind of markup."""
    said = runbook.plain(text) if whole else f"First step: {runbook.first_step(text)}"
    if channel == "slack":
        return html.escape(said, quote=False)
    # Adaptive Cards join lines unless a blank one is between them.
    return re.sub(r"\n+", "\n\n", said)


def _literal(text: str) -> str:
    """Return a text as it can stand in a Go template."""
    return text.replace("{{", '{{ "{{" }}')
