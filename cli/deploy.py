"""`messwarte deploy`: what `pyinfra INVENTORY deploy/stack.py` does, whether it would change anything, the way back."""

import json
import sys

import click

from cli import stack
from deploy.components import ORDER
from deploy.differences import PACKAGES, STRAYS, shown


@click.command()
@stack.inventory_argument
@stack.lab_option
@click.option(
    "--check", is_flag=True, help="Change nothing; exit 1 when hosts differ from what is wanted, 2 when not known."
)
@click.option("--json", "as_json", is_flag=True, help="With --check: print a list of host, component and differences.")
@click.option("--rollback", metavar="COMPONENT", help="Return to the configuration that COMPONENT had before.")
@click.option("--remove", is_flag=True, help="Take the stack away from the hosts; packages and data stay.")
@click.option("--yes", is_flag=True, help="With --remove: do not ask.")
def command(
    *,
    inventory: str,
    lab: str,  # noqa: ARG001  the inventory reads the lab's name
    check: bool,
    as_json: bool,
    rollback: str | None,
    remove: bool,
    yes: bool,
) -> None:
    """Bring the hosts of INVENTORY to what it and its settings say."""
    if sum((check, rollback is not None, remove)) > 1:
        raise click.UsageError("--check, --rollback and --remove exclude each other")
    if as_json and not check:
        raise click.UsageError("--json belongs to --check")
    if rollback:
        sys.exit(_roll_back(inventory, rollback))
    if remove:
        if not yes:
            named = ", ".join(sorted(stack.check_settings(inventory)))
            click.confirm(f"stop and remove everything that was deployed to {named} ({inventory})?", abort=True)
        sys.exit(stack.pyinfra(inventory, "deploy/remove.py"))
    hosts = stack.check_settings(inventory)
    sys.exit(_check(inventory, hosts, as_json) if check else stack.deploy(inventory))


def _check(inventory: str, hosts: set[str], as_json: bool) -> int:
    answer = stack.ask(inventory, "--dry", "deploy/check.py")
    if answer is None:
        raise stack.UnknownError("could not be checked; see above")
    (step,) = answer["plan"] or [{"names": []}]
    answers = [json.loads(name) for name in step["names"]]
    found = {one["host"]: one["differences"] for one in answers}
    if busy := sorted(one["host"] for one in answers if one["busy"]):
        raise stack.UnknownError(f"another deploy is at work on {', '.join(busy)}; check again when it has ended")
    if unknown := hosts - found.keys():
        raise stack.UnknownError(f"could not be checked, as they do not answer: {', '.join(sorted(unknown))}")
    drift = [
        {"host": host, "component": name, "differences": differences}
        for name in (STRAYS, PACKAGES, *ORDER)
        for host in sorted(found)
        if (differences := found[host].get(name))
    ]
    if as_json:
        print(json.dumps(drift, indent=2))
        return 1 if drift else 0
    for one in drift:
        for difference in shown(one["differences"], " (all: --json)"):
            print(f"{one['host']}: {one['component']} differs: {difference}")
    again = stack.again(inventory)
    number = sum(len(one["differences"]) for one in drift)
    print(f"differences: {number}; bring hosts to what is wanted with {again}" if drift else "no drift")
    return 1 if drift else 0


def _roll_back(inventory: str, component: str) -> int:
    if component not in ORDER:
        raise click.ClickException(f"there is no component `{component}`; there are: {', '.join(ORDER)}")
    status = stack.pyinfra(inventory, "deploy/rollback.py", "--data", f"component={component}")
    if not status:
        print(f"{component} runs as before; what the settings say comes back with {stack.again(inventory)}")
    return status
