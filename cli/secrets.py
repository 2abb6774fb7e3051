"""`messwarte secrets`: what there is, new ones for all who use them, and those that somebody else gives."""

import sys
from datetime import UTC, datetime

import click

from cli import stack
from cli.load import address
from proof.access import load_options
from settings import Secrets, SecretsError, Settings, certificates
from settings.known import KNOWN

_inventory = click.option("--inventory", default=stack.LAB_INVENTORY, help="Whose secrets (the lab's).")


@click.group()
def command() -> None:
    """List, rotate or set the secrets of an inventory; no value is ever shown."""


@command.command("list")
@_inventory
@stack.lab_option
def list_(inventory: str, lab: str) -> None:  # noqa: ARG001  the inventory reads the lab's name
    """Tell what secrets there are, when each was made, and what it is for."""
    _, secrets = stack.secrets(inventory)
    made = secrets.made()
    width = max(map(len, made), default=0)
    for name, moment in sorted(made.items()):
        purpose = KNOWN[name].purpose if name in KNOWN else ""
        print(f"{name:{width}}  {_age(moment):12}  {purpose}".rstrip())
    print(f"{len(made)} secrets in {secrets.path}" if made else f"{secrets.path}: none yet; a deploy makes them")


@command.command()
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that can be made here.")
@click.option("--no-deploy", is_flag=True, help="Only write them; the next deploy brings them to the hosts.")
@_inventory
@stack.lab_option
def rotate(*, names: tuple[str, ...], every: bool, no_deploy: bool, inventory: str, lab: str) -> None:
    """Make the secrets NAMES anew and deploy, so that nothing takes or uses the old ones any more.

    Whatever uses one is restarted; between the first restart and the last, logins can be refused for some seconds.
    """
    if every == bool(names):
        raise click.UsageError("name the secrets to rotate, or say --all")
    settings, secrets = stack.secrets(inventory)
    there = secrets.made()
    refused = {name: why for name in names or sorted(there) if (why := _why_not(name, settings, secrets))}
    if names and refused:
        raise stack.UnknownError("nothing was rotated.\n" + "\n".join(map(": ".join, refused.items())))
    for name, why in refused.items():
        print(f"left as it is: {name}: {why}")
    new = [name for name in names or sorted(there) if name not in refused]
    if not new:
        sys.exit("there is nothing to rotate")
    try:
        secrets.renew(new)
    except SecretsError as error:
        raise click.ClickException(str(error)) from error
    print(f"made anew in {secrets.path}: {', '.join(new)}")
    again = stack.again(inventory)
    if no_deploy:
        print(f"next: {again}, which brings them to the hosts")
    elif status := stack.deploy(inventory):
        sys.exit(f"pyinfra ended with {status}: some hosts may still have the old ones; {again} goes on")
    else:
        if inventory == stack.LAB_INVENTORY and (stack.STATE / lab / "netrc").exists():
            load_options(stack.STATE / lab, address())
        print("every host has the new ones")


@command.command("set")
@click.argument("name")
@_inventory
@stack.lab_option
def set_(name: str, inventory: str, lab: str) -> None:  # noqa: ARG001
    """Store a secret that somebody else gives: asked for, or read from standard input."""
    _, secrets = stack.secrets(inventory)
    if name not in KNOWN:
        raise click.UsageError(f"there is no secret {name}; there are: {', '.join(KNOWN)}")
    value = click.prompt(name, hide_input=True) if sys.stdin.isatty() else sys.stdin.read().strip()
    if not value:
        raise click.UsageError("an empty secret would be a password that everyone knows")
    try:
        secrets.give(name, value)
    except SecretsError as error:
        raise click.ClickException(str(error)) from error
    print(f"stored in {secrets.path}; next: {stack.again(inventory)}, which brings it to the hosts")


@command.command()
@_inventory
@stack.lab_option
def authority(inventory: str, lab: str) -> None:  # noqa: ARG001
    """Print the certificate (PEM) by which browsers and other clients trust the hosts; it is no secret."""
    settings, secrets = stack.secrets(inventory)
    if settings.network.certificates:
        raise click.UsageError(f"certificates are given: see ca.pem in {settings.network.certificates}")
    if "tls_authority" not in secrets.made():
        raise click.ClickException(f"{secrets.path} has none yet; the first deploy makes it")
    print(certificates.authority(secrets), end="")


def _why_not(name: str, settings: Settings, secrets: Secrets) -> str:
    """Return why a secret cannot be made anew here; empty when it can."""
    if name not in KNOWN:
        return f"there is no such secret; there are: {', '.join(KNOWN)}"
    known = KNOWN[name]
    if known.by:
        return known.by
    if known.server and getattr(settings, known.server).mode == "existing":
        return f"{known.server} exists already and keeps its own passwords; change it there, then: secrets set {name}"
    return "" if name in secrets.made() else f"it is not in {secrets.path}: nothing uses it yet"


def _age(moment: datetime | None) -> str:
    if moment is None:
        return "given"
    days = (datetime.now(UTC) - moment).days
    return f"{days} days old" if days != 1 else "1 day old"
