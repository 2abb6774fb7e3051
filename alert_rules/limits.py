"""Limits as recording rules, and shorter clocks for rehearsals."""

import re
from collections.abc import Mapping

import yaml

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
# A range, an offset, a rule's `for` and `keep_firing_for`, and the words in a message that tell the window.
_WINDOW = re.compile(
    r"(?<=\[)(\d+)(ms|[smhd])(?=\])|(?<=\boffset |\bwithin )(\d+)(ms|[smhd])\b|(?<=for: )(\d+)(ms|[smhd])\b"
)


def scale(text: str, factor: float) -> str:
    """Multiply the windows and `for` times of a rule file's text. Raises ValueError for a factor not above 0."""
    if factor <= 0:
        raise ValueError(f"window_factor must be above 0, not {factor}")

    def shorter(match: re.Match[str]) -> str:
        number, unit = (part for part in match.groups() if part)
        return duration(int(number) * _UNITS[unit] * factor)

    return text if factor == 1 else _WINDOW.sub(shorter, text)


def duration(milliseconds: float) -> str:
    """Return a duration in the largest unit that is exact to the millisecond, for example `72s`."""
    whole = round(milliseconds)
    unit = max((unit for unit in _UNITS if whole % _UNITS[unit] == 0), key=_UNITS.__getitem__)
    return f"{whole // _UNITS[unit]}{unit}" if whole else "0s"


def thresholds(
    *,
    slow_queries_per_hour: float = 10,
    endpoint_queries_per_minute: float = 100,
    endpoint_limits: Mapping[str, float] | None = None,
    backup_age_hours: float = 36,
    restore_drill_age_days: float = 8,
) -> str:
    """Return thresholds.yml: recording rules that the alerts compare with. Raises ValueError for a limit below 0."""
    rules = [
        _rule("erp:slow_queries_limit:per_hour", slow_queries_per_hour),
        _rule("erp:endpoint_db_queries_default_limit:per_minute", endpoint_queries_per_minute),
    ]
    rules += [
        _rule("messwarte:backup_age_limit:seconds", backup_age_hours * 3600),
        _rule("messwarte:restore_drill_age_limit:seconds", restore_drill_age_days * 86400),
    ]
    rules += [
        _rule("erp:endpoint_db_queries_limit:per_minute", limit) | {"labels": {"endpoint": endpoint}}
        for endpoint, limit in sorted((endpoint_limits or {}).items())
    ]
    head = "# Rendered from the settings' thresholds.\n"
    return head + yaml.safe_dump({"groups": [{"name": "thresholds", "rules": rules}]}, sort_keys=False)


def _rule(name: str, value: float) -> dict[str, object]:
    if not value >= 0:
        raise ValueError(f"{name}: a limit must be a number from 0 on, not {value}")
    return {"record": name, "expr": f"vector({value!r})"}
