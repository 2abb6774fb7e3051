"""Grafana dashboards as code: built with grafanalib, committed as canonical JSON, compared for drift."""

import json
import re
from pathlib import Path

from dashboards import canonical, erp_overview, postgresql

__all__ = ["GENERATED", "build", "check", "queries", "substitute", "write"]

GENERATED = Path(__file__).parent / "generated"
_DASHBOARDS = (erp_overview, postgresql)

# What Grafana fills in: four scrape intervals of 15 s; an hour, the dashboards' default range; one scrape interval.
_BUILT_IN = {"__rate_interval": "1m", "__range": "1h", "__interval": "15s"}
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")


def build() -> dict[str, str]:
    """Return every dashboard's canonical JSON by file name."""
    return {f"{module.UID}.json": canonical.text(module.build()) for module in _DASHBOARDS}


def check() -> list[str]:
    """Return how the committed files differ from what is built; empty when they do not."""
    built = build()
    committed = {path.name: path.read_text() for path in sorted(GENERATED.glob("*.json"))}
    found = [f"{name}: missing" for name in built.keys() - committed.keys()]
    found += [f"{name}: no dashboard builds it" for name in committed.keys() - built.keys()]
    changed = [name for name in built.keys() & committed.keys() if built[name] != committed[name]]
    return sorted(found + [f"{name}: differs from what is built" for name in changed])


def write() -> None:
    """Write what is built, and remove files that no dashboard builds."""
    built = build()
    GENERATED.mkdir(exist_ok=True)
    for path in GENERATED.glob("*.json"):
        if path.name not in built:
            path.unlink()
    for name, text in built.items():
        (GENERATED / name).write_text(text)


def queries() -> list[tuple[str, str, str]]:
    """Return dashboard uid, panel title and PromQL expression of every panel query, variables unfilled."""
    found = []
    for text in build().values():
        dashboard = json.loads(text)
        for panel in dashboard["panels"]:
            found += [(dashboard["uid"], panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return found


def substitute(expr: str, **values: str) -> str:
    """Fill Grafana's variables into an expression; one that is not given matches everything (`.*`)."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return values.get(name, _BUILT_IN.get(name, ".*"))

    return _VARIABLE.sub(value, expr)
