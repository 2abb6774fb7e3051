"""`messwarte bench`: run one benchmark."""

import sys

import click

from cli.run import ROOT, run, tool


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(name: str, arguments: tuple[str, ...]) -> None:
    """Run benchmark NAME, which measures both sides in one run; `--json` prints one object."""
    if not (ROOT / "bench" / f"{name}.py").exists():
        names = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if "def main" in path.read_text())
        raise click.ClickException(f"there is no benchmark `{name}`; there are: {', '.join(names)}")
    sys.exit(run([tool("python"), "-m", f"bench.{name}", *arguments]))
