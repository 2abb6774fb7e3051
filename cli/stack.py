"""What the verbs share: the lab's name, the deploy, and how a stack is, all asked through pyinfra."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from cli.run import ROOT, echo, run, tool
from deploy.topology import Topology, secrets_of, settings_of
from deploy.topology import node as node_of
from settings import Secrets, SecretsError, Settings, SettingsError

LAB_INVENTORY = "inventories/lab.py"
STATE = ROOT / ".lab"
_REPORT = "deploy.operations.HostReport"
Command = TypeVar("Command", bound=Callable[..., Any])


class UnknownError(click.ClickException):
    """How the hosts are cannot be said; ends with 2, as 1 says that they are not as wanted."""

    exit_code = 2


def lab_option(command: Command) -> Command:
    """Add `--lab NAME`, which `inventories/lab.py` reads from MESSWARTE_LAB."""
    return click.option(
        "--lab",
        default="lab",
        envvar="MESSWARTE_LAB",
        metavar="NAME",
        callback=choose_lab,
        is_eager=True,
        help="Which lab (lab); several may be up side by side.",
    )(command)


def choose_lab(_: click.Context, __: click.Parameter, name: str) -> str:
    """Tell the lab's name to inventories/lab.py."""
    os.environ["MESSWARTE_LAB"] = name
    return name


def _find_inventory(_: click.Context, __: click.Parameter, name: str) -> str:
    """Refuse a file that is not there, which pyinfra would take for the name of a host."""
    if (ROOT / name).is_file():
        return name
    if Path(name).is_file():
        return str(Path(name).resolve())
    raise click.BadParameter(f"there is no inventory {name}")


inventory_argument = click.argument("inventory", default=LAB_INVENTORY, callback=_find_inventory)


def with_lab(verb: str) -> str:
    """Return the command of a verb for the lab that was chosen."""
    name = os.environ.get("MESSWARTE_LAB", "lab")
    return f"./messwarte {verb}" + ("" if name == "lab" else f" --lab {name}")


def again(inventory: str) -> str:
    """Return the command that deploys an inventory once more."""
    command = with_lab("deploy") if inventory == LAB_INVENTORY else f"./messwarte deploy {inventory}"
    settings = os.environ.get("MESSWARTE_SETTINGS")
    return f"MESSWARTE_SETTINGS={shlex.quote(settings)} {command}" if settings else command


def check_settings(inventory: str) -> set[str]:
    """Check every settings file that an inventory names, before a host is asked; return the hosts' names.

    Raises UnknownError.
    """
    hosts = _hosts(inventory)
    nodes = [node_of(host["name"], host["data"], host["groups"]) for host in hosts]
    try:
        for data in {str(host["data"].get("settings")): host["data"] for host in hosts}.values():
            Topology(nodes, settings_of(data)[1])
    except SettingsError as error:
        raise UnknownError(str(error)) from error
    return {node.name for node in nodes}


def topology(inventory: str) -> tuple[Topology, Secrets]:
    """Return the hosts of an inventory with its settings, and its secrets. Raises UnknownError."""
    hosts = _hosts(inventory)
    nodes = [node_of(host["name"], host["data"], host["groups"]) for host in hosts]
    try:
        return Topology(nodes, settings_of(hosts[0]["data"])[1]), secrets_of(hosts[0]["data"])
    except (SettingsError, SecretsError) as error:
        raise UnknownError(str(error)) from error


def data(inventory: str) -> dict[str, Any]:
    """Return the data that the hosts of an inventory share: the names of settings and secrets. Raises UnknownError."""
    return dict(_hosts(inventory)[0]["data"])


def secrets(inventory: str) -> tuple[Settings, Secrets]:
    """Return settings and secrets of an inventory. Raises UnknownError."""
    known = {str(host["data"].get("secrets")): host["data"] for host in _hosts(inventory)}
    if len(known) != 1:
        raise UnknownError(f"{inventory}: its hosts have to name one secrets file: {', '.join(known) or 'no host'}")
    (data,) = known.values()
    try:
        return settings_of(data)[1], secrets_of(data)
    except (SettingsError, SecretsError) as error:
        raise UnknownError(str(error)) from error


def _hosts(inventory: str) -> list[dict[str, Any]]:
    """Return name, data and groups of every host of an inventory."""
    known: list[dict[str, Any]] | None = ask(inventory, "debug-inventory")
    if not known:
        raise UnknownError(f"{inventory} cannot be read, or names no host; see above")
    return known


def _refuse_absent_lab(inventory: str) -> None:
    name = os.environ.get("MESSWARTE_LAB", "lab")
    if inventory == LAB_INVENTORY and not (STATE / name / "lab.json").exists():
        raise UnknownError(f"lab {name} is not up; run: {with_lab('up')}")


def deploy(inventory: str, output: TextIO | None = None, **environment: str) -> int:
    """Bring the hosts to what the inventory and its settings say; return pyinfra's exit status."""
    return pyinfra(inventory, "deploy/stack.py", output=output, **environment)


def pyinfra(inventory: str, *arguments: str, output: TextIO | None = None, **environment: str) -> int:
    """Run pyinfra on an inventory without its question; return its exit status."""
    _refuse_absent_lab(inventory)
    return run([tool("pyinfra"), "-y", inventory, *arguments], output, **environment)


def ask(inventory: str, *arguments: str) -> Any:
    """Return the JSON that pyinfra prints, or None when it prints none; what it says on the way stays visible."""
    _refuse_absent_lab(inventory)
    command = [tool("pyinfra"), "--json", inventory, *arguments]
    echo(command)
    # Asking makes no secrets.
    environment = os.environ | {"MESSWARTE_KEEP_SECRETS": "no"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return None


def health(inventory: str) -> list[dict[str, Any]]:
    """Return component, host, url, healthy and detail of everything that belongs on the hosts."""
    known = _hosts(inventory)
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
    for host in _hosts(inventory):
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
