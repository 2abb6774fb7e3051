"""`messwarte restore`: what can be restored, the database as it was at a moment, and the drill that tries it out."""

import shlex
import sys

import click

from cli import stack
from cli.run import run
from deploy.backup.host.recover import target
from deploy.backup.host.system import BackupError

_COMMAND = "messwarte-backup"
_ABSENT = (
    "no backups are deployed on this host: set backup.mode and a place (docs/settings.md), and deploy; "
    "where a place has backups of a host that was lost, `restore --to latest` brings them to this one"
)


def _moment(_: click.Context, __: click.Parameter, to: str | None) -> str | None:
    """Refuse what is no moment before anything is installed for it."""
    try:
        if to is not None:
            target(to, None)
    except BackupError as error:
        raise click.BadParameter(str(error)) from error
    return to


@click.command()
@stack.inventory_argument
@stack.lab_option
@click.option(
    "--to",
    metavar="MOMENT",
    callback=_moment,
    help="Restore: `latest`, or a moment such as `2026-11-25 01:02:03+00`.",
)
@click.option(
    "--timeline", type=int, help="With --to: the history to follow, where an earlier restore began a new one."
)
@click.option("--drill", is_flag=True, help="Restore beside the database, check, and delete it again.")
@click.option("--yes", is_flag=True, help="With --to: do not ask.")
def command(*, inventory: str, lab: str, to: str | None, timeline: int | None, drill: bool, yes: bool) -> None:  # noqa: ARG001
    """List the backups of INVENTORY's database, bring it back to a moment (--to), or try that out (--drill)."""
    if to and drill:
        raise click.UsageError("--to and --drill exclude each other")
    if timeline is not None and not to:
        raise click.UsageError("--timeline belongs to --to")
    stack.check_settings(inventory)
    host = stack.login(inventory, "database")
    if not to:
        verb = "drill" if drill else "info"
        sys.exit(
            run([*host, f"command -v {_COMMAND} >/dev/null || {{ echo '{_ABSENT}'; exit 1; }}; {_COMMAND} {verb}"])
        )
    where = ["--to", to, *(["--timeline", str(timeline)] if timeline else [])]
    if stack.pyinfra(inventory, "deploy/restore.py", "--limit", "database", "--data", "phase=prepare"):
        raise click.ClickException("nothing was stopped or restored; see above")
    if run([*host, shlex.join([_COMMAND, "check", *where])]):
        raise click.ClickException("nothing was stopped or restored; see above")
    if not yes:
        click.confirm("stop the ERP and PostgreSQL, and restore?", abort=True)
    sys.exit(_restore(inventory, host, where))


def _restore(inventory: str, host: list[str], where: list[str]) -> int:
    """Stop what writes, restore, and have a deploy start everything again, also where the restore failed."""
    # A host that cannot be reached just now has no session either, as soon as PostgreSQL is stopped.
    if stack.pyinfra(inventory, "deploy/restore.py", "--data", "phase=stop"):
        print("not everything that writes could be stopped; PostgreSQL ends its sessions", file=sys.stderr)
    restored = run([*host, shlex.join([_COMMAND, "restore", *where])])
    deployed = stack.deploy(inventory)
    if restored:
        print("nothing was restored; see above the deploy", file=sys.stderr)
    return restored or deployed
