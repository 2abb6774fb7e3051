"""`messwarte up`: the whole stack on a host that is thrown away later."""

import os
import platform
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import click

from cli import stack
from cli.lab_stack import LabStack, wait_for_data
from cli.run import ROOT
from deploy import apps
from lab import Lab, LabError
from proof.access import load_options

_LAB_PYTHON = "3.13"


@click.command()
@click.argument("hosts", nargs=-1)
@stack.lab_option
def command(hosts: tuple[str, ...], lab: str) -> None:
    """Boot a Debian 13 host, deploy the stack with a demo ERP under load, and wait until data and a mail are there.

    HOSTS are names; a host named database, cache, monitoring, worker, app or backup carries that group, the first one
    the rest, but for backups.
    """
    begun = time.monotonic()
    try:
        with ThreadPoolExecutor(1) as pool:
            archives = pool.submit(apps.make_all, _LAB_PYTHON, platform.machine())
            Lab(lab, stack.STATE).up(hosts or ("erp",))
            archives.result()
        if status := stack.deploy(stack.LAB_INVENTORY):
            sys.exit(status)
        found = LabStack.of(lab)
        wait_for_data(found.parts())
    except (LabError, apps.AppError) as error:
        raise click.ClickException(str(error)) from error
    _tell(found, time.monotonic() - begun)


def _tell(found: LabStack, seconds: float) -> None:
    load_options(stack.STATE / found.lab, found.base("erp"))
    key, known = _shown(found, "id_ed25519"), _shown(found, "known_hosts")
    mailbox = found.machine("mailbox").address
    curl = ["curl", "--cacert", _shown(found, "ca.pem"), "--netrc-file", _shown(found, "netrc")]
    read = ["ssh", "-i", key, "-o", f"UserKnownHostsFile={known}", f"root@{mailbox}", "cat /var/mail/operator"]
    rows = {
        "Grafana": found.url("grafana") or "not deployed: see the deploy's warning above",
        "Demo ERP": found.url("erp"),
        "Task queue": found.url("tasks"),
        "Prometheus": found.url("prometheus"),
        "Alertmanager": found.url("alertmanager"),
        "Alert mails": shlex.join(read),
        "Logins": "viewer (secret grafana_viewer) in Grafana, operator (secret gate_operator) elsewhere",
        "Secrets": _shown(found, "secrets.yml"),
        "Authority": f"{_shown(found, 'ca.pem')} (browsers warn until they trust it)",
        "By script": shlex.join([*curl, str(found.url("prometheus"))]),
    }
    print(f"\nup in {seconds:.0f} s")
    for name, value in rows.items():
        print(f"  {name:12} {value}")
    print(f"next: {stack.with_lab('status')}   then {stack.with_lab('down')}")


def _shown(found: LabStack, name: str) -> str:
    """Return the path of a file of the lab, as one types it in the checkout."""
    return os.path.relpath(stack.STATE / found.lab / name, ROOT)
