"""Committed renderings, so that a change of rules, routes or messages shows in the diff as what people get."""

import shutil
import subprocess
from pathlib import Path

from alert_rules import HERE, alertmanager, thresholds
from alert_rules.alertmanager import Email, Slack, Teams

_FOLDER = HERE / "alertmanager" / "goldens"
_SAMPLE = HERE / "alertmanager" / "sample.json"
_EMAIL = Email("mail.example.com:587", "messwarte@example.com", ("operator@example.com",), username="messwarte")
_GRAFANA = "https://grafana.example.com"

# What a message is called -> its template, and whether it is HTML.
_MAIL = {
    "subject.txt": ("messwarte.title", "text"),
    "mail.html": ("messwarte.html", "html"),
    "mail.txt": ("messwarte.text", "text"),
}
_CHAT = {"teams.md": ("messwarte.teams", "text"), "slack.txt": ("messwarte.slack", "text")}
_MESSAGES = {
    "email_with_grafana": _MAIL,
    "email_without_grafana": _MAIL,
    "all_receivers": _CHAT,
    "chat_without_grafana": _CHAT,
}


def configurations() -> dict[str, dict[str, str]]:
    """Return Alertmanager's files for each kind of installation that differs."""
    render = alertmanager.render
    return {
        "email_with_grafana": render(email=_EMAIL, grafana_url=_GRAFANA),
        "email_without_grafana": render(email=_EMAIL),
        "all_receivers": render(email=_EMAIL, teams=Teams(), slack=Slack("#erp-alerts"), grafana_url=_GRAFANA),
        "chat_without_grafana": render(teams=Teams(), slack=Slack("#erp-alerts")),
        "no_receiver": render(),
    }


def files() -> dict[Path, str]:
    """Return every committed file that is rendered by Python alone."""
    found = {HERE / "thresholds.yml": thresholds()}
    for name, rendered in configurations().items():
        found |= {_FOLDER / name / path: text for path, text in rendered.items()}
    return found


def messages(amtool: str) -> dict[Path, str]:
    """Return the sample's messages as Alertmanager's own tool renders them."""
    found = {}
    for name, wanted in _MESSAGES.items():
        templates = _FOLDER / name / "templates" / "*.tmpl"
        for file, (template, kind) in wanted.items():
            command = [
                amtool,
                "template",
                "render",
                f"--template.glob={templates}",
                f"--template.type={kind}",
            ]
            command += [f"--template.data={_SAMPLE}", f'--template.text={{{{ template "{template}" . }}}}']
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            found[_FOLDER / name / "messages" / file] = run.stdout.rstrip("\n") + "\n"
    return found


def write() -> list[str]:
    """Write what is rendered; messages only where amtool is installed. Return what was left out, with the reason."""
    _store(files())
    amtool = shutil.which("amtool")
    if amtool is None:
        return ["messages: amtool is missing; run: apt-get install prometheus-alertmanager"]
    _store(messages(amtool))
    return []


def stale(rendered: dict[Path, str]) -> list[str]:
    """Return the committed files that differ from what is rendered."""
    return [
        str(path.relative_to(HERE)) for path, text in rendered.items() if not path.exists() or path.read_text() != text
    ]


def _store(rendered: dict[Path, str]) -> None:
    for path, text in rendered.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
