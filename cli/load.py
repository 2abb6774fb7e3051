"""`messwarte load`: an open-loop workload on the demo ERP."""

import sys

import click

from cli import stack
from cli.run import run, tool
from proof.access import load_options
from settings import SecretsError


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@stack.lab_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(lab: str, arguments: tuple[str, ...]) -> None:
    """Send requests at a fixed rate to the lab's ERP (or `--url URL`); report latencies and errors."""
    erp: list[str] = []
    given = {argument.partition("=")[0] for argument in arguments}
    if {"--help", "-h"} & given:
        click.echo(click.get_current_context().get_help() + "\n\nThe rest goes to the program that sends them:\n")
    elif "--url" not in given:
        try:
            erp = load_options(stack.STATE / lab, address())
        except SecretsError as error:
            raise click.ClickException(str(error)) from error
    sys.exit(run([tool("python"), "-m", "erp", "load", *erp, *arguments]))


def address() -> str:
    """Return the base URL of the lab's ERP."""
    for line in stack.health(stack.LAB_INVENTORY):
        if line["component"] == "erp":
            return str(line["url"]).removesuffix("/")
    raise click.ClickException("no demo ERP runs in the lab; give --url")
