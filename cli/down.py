"""`messwarte down`: end a lab and leave nothing of it."""

import shutil

import click

from cli import stack
from deploy import apps
from lab import Lab, LabError, purge_trees


@click.command()
@stack.lab_option
@click.option("--purge", is_flag=True, help="Also delete the cached Debian trees and the archives of our programs.")
def command(lab: str, purge: bool) -> None:
    """End the lab's hosts; take away their files, network and secrets. The trees stay for the next `up`."""
    try:
        one = Lab(lab, stack.STATE)
        if owner := one.foreign_owner():
            raise click.ClickException(f"lab {lab} runs from {owner}; take it down there")
        there = one.down()
        if purge:
            purge_trees()
            shutil.rmtree(apps.CACHE.parent, ignore_errors=True)
    except LabError as error:
        raise click.ClickException(str(error)) from error
    print(f"{f'lab {lab} is down' if there else f'there was no lab {lab}'}; start it with {stack.with_lab('up')}")
