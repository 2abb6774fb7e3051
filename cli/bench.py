"""`messwarte bench`: run one benchmark."""

import ast
import sys

import click

from cli.run import ROOT, run, tool


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(name: str | None, arguments: tuple[str, ...]) -> None:
    """Run benchmark NAME, which measures both sides in one run, or list them; `--json` prints one object."""
    benchmarks = {path.stem: path.read_text() for path in (ROOT / "bench").glob("*.py")}
    purposes = {
        stem: ast.get_docstring(ast.parse(text)) or "" for stem, text in benchmarks.items() if "def main" in text
    }
    if name is None:
        for stem, purpose in sorted(purposes.items()):
            click.echo(f"{stem:16} {purpose.partition(chr(10))[0]}")
        return
    if name not in purposes:
        raise click.ClickException(f"there is no benchmark `{name}`; there are: {', '.join(sorted(purposes))}")
    sys.exit(run([tool("python"), "-m", f"bench.{name}", *arguments]))
