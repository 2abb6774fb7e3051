"""Alertmanager's files: routes, receivers and message templates."""

from alert_rules.alertmanager.render import Email, Slack, Teams, render

__all__ = ["Email", "Slack", "Teams", "render"]
