"""`messwarte attach`: a PostgreSQL, a Prometheus or a Grafana that is there already joins in."""

import sys
from pathlib import Path
from typing import Any

import click
import yaml

from attach import AttachError, sessions
from attach.postgresql import ROLE, Server, Step
from cli import stack
from settings import Secrets, SecretsError, SettingsError, load
from settings.model import ExistingPostgreSQL

_WAYS = "the password is asked for on a terminal, or comes with --password-file, --password-stdin or ~/.pgpass"
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Let what is there already join in; nothing of it is restarted, and nothing that is not ours is changed."""


@command.command()
@click.argument("dsn")
@stack.inventory_argument
@stack.lab_option
@click.option(
    "--address", metavar="HOST:PORT", help="How the monitoring host reaches it, where the DSN's host does not."
)
@click.option("--password-file", type=_file, help="Holds the administrator's password.")
@click.option("--password-stdin", is_flag=True, help="Read the administrator's password from standard input.")
@click.option("--create-extension", is_flag=True, help="Create pg_stat_statements, where its library is loaded.")
@click.option("--dry-run", is_flag=True, help="Only show the SQL.")
@click.option("--remove", is_flag=True, help="Take the role and its grants away.")
def postgresql(
    *,
    dsn: str,
    inventory: str,
    lab: str,  # noqa: ARG001  the inventory reads the lab's name
    address: str | None,
    password_file: Path | None,
    password_stdin: bool,
    create_extension: bool,
    dry_run: bool,
    remove: bool,
) -> None:
    """Give the PostgreSQL at DSN, to which an administrator connects (URI or key=value), a monitoring role."""
    try:
        parameters = sessions.parse(dsn)
        settings_file, secrets_file = stack.files(inventory)
        with _connect(parameters, _secret(password_file, password_stdin)) as connection:
            server, there = Server(connection), sessions.existing(connection, address)
            tls = "over TLS" if server.tls else "without TLS"
            print(f"PostgreSQL {server.facts.version} at {there.address}, database {there.database}, {tls}")
            if remove:
                _run(server, server.removal(), "nothing to change: there is no such role", dry_run)
                return
            secrets = Secrets(secrets_file, keep=not dry_run)
            verifier, password = secrets.scram("postgres_monitor"), secrets.get("postgres_monitor")
            known = server.facts.role is not None and not sessions.login(parameters, there, password)[0]
            steps = server.steps(verifier, known=known, create_extension=create_extension)
            _run(server, steps, "nothing to change: role and grants are there", dry_run)
            for notice in server.notices(create_extension=create_extension):
                print(f"note: {notice}")
            trouble, encrypted = ("", server.tls) if dry_run else sessions.login(parameters, there, password)
            there = sessions.with_tls(there, parameters, encrypted=server.tls if trouble else encrypted)
        if not dry_run:
            _tell(settings_file, there)
            _try_the_way(inventory, there, trouble)
    except sessions.DsnError as error:
        raise click.UsageError(f"DSN {error}; {_WAYS}") from error
    except sessions.PasswordNeededError as error:
        raise click.UsageError(f"{error}; {_WAYS}") from error
    except (AttachError, SecretsError, SettingsError) as error:
        raise click.ClickException(str(error)) from error


def _secret(file: Path | None, stdin: bool) -> str | None:
    """Return the first line of a file or of standard input; None when neither is asked for."""
    if file and stdin:
        raise click.UsageError("a secret comes from a file or from standard input, not from both")
    lines = file.read_text().splitlines() if file else [sys.stdin.readline().rstrip("\n")] if stdin else None
    return next(iter(lines), "") if lines is not None else None


def _connect(parameters: dict[str, Any], password: str | None) -> Any:
    try:
        return sessions.connect(parameters, password)
    except sessions.PasswordNeededError:
        if not sys.stdin.isatty():
            raise
        return sessions.connect(parameters, click.prompt("Password of the administrator", hide_input=True, err=True))


def _run(server: Server, steps: list[Step], nothing: str, dry_run: bool) -> None:
    if not steps:
        print(nothing)
        return
    print("SQL that would run, in one transaction:" if dry_run else "SQL, in one transaction:")
    print("".join(f"    {step.shown};\n" for step in steps), end="")
    if not dry_run and (loud := server.run(steps)):
        print(f"note: the server's log may hold this SQL, as only a superuser can set {', '.join(loud)}")


def _tell(settings_file: Path, there: ExistingPostgreSQL) -> None:
    try:
        known = load(settings_file).postgresql.existing == there
    except SettingsError:
        known = False
    if known:
        print(f"{settings_file} says so already")
        return
    section = {"mode": "existing", "existing": there.model_dump(exclude_none=True)}
    lines = yaml.safe_dump({"postgresql": section}, sort_keys=False).splitlines()
    print("\n".join([f"settings, for {settings_file}:", *(f"    {line}" for line in lines)]))


def _try_the_way(inventory: str, there: ExistingPostgreSQL, trouble_here: str) -> None:
    """Say whether the role may come from where the exporter will be. Raises AttachError."""
    try:
        said, place = sessions.from_host(stack.login(inventory, "monitoring"), there), "the monitoring host"
    except click.ClickException:
        # There is no monitoring host yet.
        said, place = trouble_here or "ok", "this machine"
    if said != "ok":
        raise AttachError(
            f"{ROLE} cannot log in from {place}: {said}\nIf pg_hba.conf is in the way, add the line "
            f"`host {there.database} {ROLE} ADDRESS/32 scram-sha-256` and reload PostgreSQL; then run this again."
        )
    again = stack.with_lab("deploy") if inventory == stack.LAB_INVENTORY else f"./messwarte deploy {inventory}"
    print(f"{ROLE} may log in from {place}\nnext: {again}")
