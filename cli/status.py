"""`messwarte status`: one line per component of a stack."""

import json
import sys

import click

from cli import stack


@click.command()
@stack.inventory_argument
@stack.lab_option
@click.option("--json", "as_json", is_flag=True, help="Print a list of component, host, url, healthy and detail.")
def command(inventory: str, lab: str, as_json: bool) -> None:  # noqa: ARG001  the inventory reads the lab's name
    """Tell how every component on the hosts of INVENTORY is; exit 1 when one is not well."""
    lines = stack.health(inventory)
    broken = [line for line in lines if not line["healthy"]]
    if as_json:
        print(json.dumps(lines, indent=2))
    else:
        columns = ("host", "component", "url")
        widths = {column: max(len(line[column] or "") for line in lines) for column in columns}
        for line in lines:
            mark = click.style("ok    ", "green") if line["healthy"] else click.style("BROKEN", "red")
            cells = [f"{line[column] or '':{widths[column]}}" for column in columns]
            click.echo("  ".join([mark, *cells, line["detail"]]).rstrip())
        print(f"{len(broken)} of {len(lines)} components are broken" if broken else f"all {len(lines)} are well")
    sys.exit(1 if broken else 0)
