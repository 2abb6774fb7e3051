"""`messwarte dashboards`: write the dashboards' JSON, or compare it."""

import sys

import click

from cli.run import run, tool


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when the committed files differ.")
def command(check: bool) -> None:
    """Generate dashboards/generated/*.json, whose diff reviewers read."""
    sys.exit(run([tool("python"), "-m", "dashboards", *(["--check"] if check else [])]))
