"""`messwarte attach`: a PostgreSQL, a Prometheus or a Grafana that is there already joins in."""

import os
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from attach import AttachError, sessions
from attach import prometheus as files
from attach.grafana import Grafana, check_url
from attach.postgresql import ROLE, Server, Step
from cli import stack
from deploy.topology import secrets_of
from settings import SecretsError, SettingsError, load
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
        data = stack.data(inventory)
        settings_file = Path(data.get("settings") or "settings.yml").resolve()
        with _connect(parameters, _secret(password_file, password_stdin)) as connection:
            server, there = Server(connection), sessions.existing(connection, address)
            tls = "over TLS" if server.tls else "without TLS"
            print(f"PostgreSQL {server.facts.version} at {there.address}, database {there.database}, {tls}")
            if remove:
                _run(server, server.removal(), "nothing to change: there is no such role", dry_run)
                print("next: set `postgresql: {mode: off}`, and deploy: the exporter goes")
                return
            secrets = secrets_of(data, keep=not dry_run)
            verifier, password = secrets.scram("postgres_monitor"), secrets.get("postgres_monitor")
            # Whoever may not read the stored verifier tries the password itself.
            unread = server.facts.role is not None and not server.facts.sees_passwords
            known = unread and not sessions.login(parameters, there, password)[0]
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


@command.command()
@click.argument("outdir", type=click.Path(file_okay=False, path_type=Path))
@stack.inventory_argument
@stack.lab_option
def prometheus(*, outdir: Path, inventory: str, lab: str) -> None:  # noqa: ARG001  the inventory reads the lab's name
    """Write what an existing Prometheus includes into OUTDIR: scrape jobs, rules, and what passes the gates."""
    topology, secrets = stack.topology(inventory)
    if topology.settings.prometheus.mode == "off":
        raise click.ClickException(
            "prometheus.mode is `off`, so no host has exporters; set it to `existing`, and deploy"
        )
    try:
        wanted = files.files(topology, secrets)
        changed = files.write(outdir.resolve(), wanted)
    except (AttachError, SecretsError) as error:
        raise click.ClickException(str(error)) from error
    print("\n".join(f"wrote {path}" for path in changed) or "nothing to change: the files are there")
    if not topology.exposed:
        print("the targets are on loopback: this Prometheus has to run on their host")
    print(files.advice(outdir.resolve(), wanted))


@command.command()
@click.argument("url")
@click.option("--token-file", type=_file, help="Holds the token of a service account; or MESSWARTE_GRAFANA_TOKEN.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@click.option("--datasource", metavar="UID", help="Which Prometheus the dashboards ask, where there are several.")
@click.option("--plain-http", is_flag=True, help="Send the token without TLS: nobody else can read the network.")
@click.option("--overwrite", is_flag=True, help="Also replace, or remove, dashboards that were changed by hand.")
@click.option("--remove", is_flag=True, help="Take our dashboards and our folder away.")
def grafana(
    *,
    url: str,
    token_file: Path | None,
    token_stdin: bool,
    datasource: str | None,
    plain_http: bool,
    overwrite: bool,
    remove: bool,
) -> None:
    """Bring the dashboards into the Grafana at URL, through its API, with the token of a service account (Editor)."""
    token = _secret(token_file, token_stdin) or os.environ.get("MESSWARTE_GRAFANA_TOKEN")
    if not token and not sys.stdin.isatty():
        raise click.UsageError(
            "the token is asked for on a terminal, or comes with --token-file, --token-stdin or MESSWARTE_GRAFANA_TOKEN"
        )
    try:
        check_url(url, plain_http=plain_http)
        with Grafana(url, token or click.prompt("Token of the service account", hide_input=True, err=True)) as server:
            if remove:
                done = server.remove(overwrite=overwrite)
            else:
                source = server.source(datasource)
                print(f"Grafana {server.version} at {server.url}, data source {source['name']} ({source['uid']})")
                done = server.bring(source, overwrite=overwrite)
    except AttachError as error:
        raise click.ClickException(str(error)) from error
    print("\n".join(done) or "nothing to change")


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
