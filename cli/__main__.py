"""Entry point of ./messwarte: each verb is a module of this package, imported only when it is called."""

import importlib
import sys

import click

VERBS = {
    "up": "a whole stack on a Debian host that is thrown away later",
    "status": "how every component is",
    "down": "end what `up` started",
    "load": "send requests to the demo ERP",
    "migrate": "the versioned SQL of the database: status, apply, refresh",
    "deploy": "bring hosts to what inventory and settings say, or check",
    "secrets": "what passwords there are, and new ones for all who use them",
    "restore": "the database as it was at a moment, or a drill",
    "attach": "let a PostgreSQL, Prometheus or Grafana that is there already join in",
    "dashboards": "write the dashboards' JSON, or check it",
    "alerts": "write the alert messages' examples, or check them",
    "prove": "show that panels have data and alerts fire, arrive and resolve",
    "bench": "run a benchmark",
    "test": "run the tests: unit, integration and hosts",
}


class Verbs(click.Group):
    """Loads a verb's module when it is called, so that `--help` and quick verbs start at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the verbs in the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the verb's command, or None when there is no such verb."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"cli.{cmd_name}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Messwarte: an observability stack for a PostgreSQL-backed ERP, as code."""


if __name__ == "__main__":
    sys.exit(main(prog_name="./messwarte"))
