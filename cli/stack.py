"""What the verbs share: the lab's name, the deploy, and how a stack is, all asked through pyinfra."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TextIO, TypeVar

import click

from cli.run import ROOT, echo, run, tool

LAB_INVENTORY = "inventories/lab.py"
STATE = ROOT / ".lab"
_REPORT = "deploy.operations.HostReport"
Command = TypeVar("Command", bound=Callable[..., Any])


def lab_option(command: Command) -> Command:
    """Add `--lab NAME`, which `inventories/lab.py` reads from MESSWARTE_LAB."""
    return click.option(
        "--lab",
        default="lab",
        envvar="MESSWARTE_LAB",
        metavar="NAME",
        callback=choose_lab,
        help="Which lab (lab); several may be up side by side.",
    )(command)


def choose_lab(_: click.Context, __: click.Parameter, name: str) -> str:
    """Tell the lab's name to inventories/lab.py."""
    os.environ["MESSWARTE_LAB"] = name
    return name


inventory_argument = click.argument("inventory", default=LAB_INVENTORY)


def deploy(inventory: str, output: TextIO | None = None, **environment: str) -> int:
    """Bring the hosts to what the inventory and its settings say; return pyinfra's exit status."""
    return pyinfra(inventory, "deploy/stack.py", output=output, **environment)


def pyinfra(inventory: str, *arguments: str, output: TextIO | None = None, **environment: str) -> int:
    """Run pyinfra on an inventory without its question; return its exit status."""
    return run([tool("pyinfra"), "-y", inventory, *arguments], output, **environment)


def ask(inventory: str, *arguments: str) -> Any:
    """Return the JSON that pyinfra prints, or None when it prints none; what it says on the way stays visible."""
    command = [tool("pyinfra"), "--json", inventory, *arguments]
    echo(command)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return None


def health(inventory: str) -> list[dict[str, Any]]:
    """Return component, host, url, healthy and detail of everything that belongs on the hosts."""
    known = ask(inventory, "debug-inventory")
    if known is None:
        raise click.ClickException(f"{inventory} cannot be read; see above")
    found = report(inventory, "health")
    lines = []
    for host in (one["name"] for one in known):
        of_host = found.get(host)
        if of_host is None:
            of_host = [_line("host", "cannot be reached over SSH, or not asked as root")]
        elif not of_host:
            of_host = [_line("stack", "nothing is deployed here yet")]
        lines += [{"component": one["component"], "host": host, **one} for one in of_host]
    return lines


def report(inventory: str, verb: str) -> dict[str, Any]:
    """Return what the hosts report about a verb, by host; those that cannot be reached are missing."""
    answer = ask(inventory, "fact", _REPORT, f"verb={verb}") or {}
    return next(iter(answer.values()), {})


def _line(component: str, trouble: str) -> dict[str, Any]:
    return {"component": component, "url": None, "healthy": False, "detail": trouble}


def login(inventory: str, group: str) -> list[str]:
    """Return the command that runs another as root on the first host of a group, as one argument."""
    for host in ask(inventory, "debug-inventory") or []:
        if group in host["groups"]:
            return _ssh(host["name"], host["data"])
    raise click.ClickException(f"{inventory} has no host in group `{group}`")


def _ssh(name: str, data: dict[str, Any]) -> list[str]:
    root = ["sudo"] if data.get("_sudo") else []
    if name == "@local":
        return [*root, "sh", "-c"]
    settings = {
        "-l": data.get("ssh_user"),
        "-p": data.get("ssh_port"),
        "-i": data.get("ssh_key"),
        "-o": data.get("ssh_known_hosts_file") and f"UserKnownHostsFile={data['ssh_known_hosts_file']}",
    }
    options = [part for option, value in settings.items() if value for part in (option, str(value))]
    return ["ssh", *options, data.get("ssh_hostname") or name, *root]
