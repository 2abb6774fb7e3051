"""Alerting rules, static and tested beside their files; limits come from one rendered file of recording rules."""

from pathlib import Path

from alert_rules.limits import scale, thresholds
from alert_rules.runbook import runbooks

__all__ = ["HERE", "RULES", "rule_files", "runbooks", "scale", "thresholds"]

HERE = Path(__file__).parent
RULES = ("backup.yml", "erp.yml", "meta.yml")


def rule_files(*, window_factor: float = 1.0) -> dict[str, str]:
    """Return the rule files' texts by name; windows and `for` times are multiplied (1 leaves them verbatim)."""
    return {name: scale((HERE / name).read_text(), window_factor) for name in RULES}
