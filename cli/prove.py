"""`messwarte prove`: panels have data, alerts fire from real trouble, arrive by mail and resolve."""

import json
import sys
from pathlib import Path

import click
import yaml

from cli import stack
from cli.lab_stack import LabStack, wait_for_data
from cli.run import ROOT
from lab import Lab, LabError
from proof import alerts, panels
from proof.alerts import Stack

# Scrapes every second, and windows of at least five of them.
_TIMING = {"interval_factor": 1 / 15, "window_factor": 1 / 60}
# In a window of five seconds, chance alone takes an endpoint of the steady load over 100 queries a minute.
_ENDPOINT_LIMIT = 300


@click.command()
@click.option("--lab", default="prove", metavar="NAME", callback=stack.choose_lab, help="Which lab (prove).")
@click.option("--keep", is_flag=True, help="Leave the lab up afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of claim, proved and trouble on standard output.")
def command(lab: str, keep: bool, as_json: bool) -> None:
    """Boot a host, deploy with shortened clocks, drive load and locks; exit 1 when something was not shown."""
    hosts = Lab(lab, stack.STATE)
    claims: list[tuple[str, list[str]]] = []
    try:
        hosts.up(on_progress=_tell)
        if stack.deploy(stack.LAB_INVENTORY, output=sys.stderr, MESSWARTE_SETTINGS=str(_settings(lab))):
            raise click.ClickException("the deploy failed; see above")
        parts = LabStack.of(lab).parts()
        wait_for_data(parts)
        claims = _prove(parts)
    except LabError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if not keep:
            hosts.down(on_progress=_tell)
    _report(claims, as_json)


def _settings(lab: str) -> Path:
    """Write the lab's settings with shortened clocks, and a limit that fits them."""
    settings = yaml.safe_load((ROOT / "inventories" / "lab.yml").read_text()) | {"timing": _TIMING}
    settings["thresholds"]["endpoint_queries_per_minute"] = _ENDPOINT_LIMIT
    path = stack.STATE / lab / "settings.yml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def _prove(parts: Stack) -> list[tuple[str, list[str]]]:
    """Return each claim and what speaks against it."""
    firing = [f"{name} fires" for name in sorted(parts.prometheus.firing())]
    claims = [("at rest no alert fires but the dead-man's switch", firing)]
    claims += [
        (f"{course.alert} fires from real trouble, arrives by mail and resolves", course.shortcomings())
        for course in alerts.prove(parts, _tell)
    ]
    claims.append(("the plan's metrics are above zero", panels.idle_metrics(parts.prometheus)))
    claims.append(("every panel query has data in Prometheus", panels.empty_panels(parts.prometheus)))
    if parts.grafana:
        claims.append(
            ("every panel query has data for a viewer of Grafana", panels.empty_panels_of_viewer(parts.grafana))
        )
    else:
        _tell("Grafana is not deployed: its panels and links were not tried")
    return claims


def _tell(line: str) -> None:
    # Standard output is the report's alone.
    click.echo(line, err=True)


def _report(claims: list[tuple[str, list[str]]], as_json: bool) -> None:
    if as_json:
        print(json.dumps([{"claim": claim, "proved": not trouble, "trouble": trouble} for claim, trouble in claims]))
    else:
        for claim, trouble in claims:
            print("\n          ".join([f"{'REFUTED' if trouble else 'proved'}   {claim}", *trouble]))
    sys.exit(1 if any(trouble for _, trouble in claims) else 0)
