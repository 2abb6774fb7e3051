"""`messwarte migrate`: the migration runner on the database host."""

import shlex
import sys

import click

from cli import stack
from cli.run import run


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("verb", type=click.Choice(["status", "apply", "refresh"]))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--inventory", default=stack.LAB_INVENTORY, help="Whose database host (the lab's).")
@stack.lab_option
def command(verb: str, arguments: tuple[str, ...], inventory: str, lab: str) -> None:  # noqa: ARG001
    """Show, apply or refresh; `status` ends with 3 when something is pending, ARGUMENTS may be `--json`."""
    sys.exit(run([*stack.login(inventory, "database"), shlex.join(["messwarte-migrate", verb, *arguments])]))
