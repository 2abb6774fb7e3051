"""`messwarte alerts`: write Alertmanager's rendered examples, or compare them."""

import sys

import click

from cli.run import run, tool


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when the committed files differ.")
def command(check: bool) -> None:
    """Render the examples in alert_rules/alertmanager/goldens, whose diff reviewers read."""
    sys.exit(run([tool("python"), "-m", "alert_rules", *(["--check"] if check else [])]))
