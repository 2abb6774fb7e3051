"""`messwarte deploy`: what `pyinfra INVENTORY deploy/stack.py` does, or whether it would change anything."""

import json
import sys

import click

from cli import stack


@click.command()
@stack.inventory_argument
@stack.lab_option
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when the hosts differ from what is wanted.")
@click.option("--json", "as_json", is_flag=True, help="With --check: print the list of host and component that differ.")
def command(inventory: str, lab: str, check: bool, as_json: bool) -> None:  # noqa: ARG001
    """Bring the hosts of INVENTORY to what it and its settings say."""
    if not check:
        sys.exit(stack.deploy(inventory))
    answer = stack.ask(inventory, "--dry", "deploy/stack.py")
    if answer is None:
        raise click.ClickException("could not be checked; see above")
    drift = [(host, step["name"]) for step in answer["plan"] for host in step["hosts_with_change"]]
    if as_json:
        print(json.dumps([{"host": host, "component": name} for host, name in drift], indent=2))
    else:
        for host, name in drift:
            print(f"{host}: {name} differs")
        print(f"{len(drift)} differ; bring them back with ./messwarte deploy {inventory}" if drift else "no drift")
    sys.exit(1 if drift else 0)
