"""`messwarte test`: style and types first, because they take seconds, then the tests."""

import sys

import click

from cli.run import run, tool


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--long", "long", is_flag=True, help="Also run the tests that take minutes.")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def command(long: bool, pytest_arguments: tuple[str, ...]) -> None:
    """Run style and type checks, then unit, integration and hosts tests (or what PYTEST_ARGUMENTS name).

    All tests run in two processes, hosts tests in one of them, as both mostly wait; what is named runs in one.
    """
    style = [
        run([tool("ruff"), "check", "--quiet", "."]),
        run([tool("ruff"), "format", "--check", "--quiet", "."]),
        run([tool("mypy")]),
    ]
    pytest = [tool("pytest"), *(["--long"] if long else [])]
    tests = run([*pytest, *(pytest_arguments or ("--numprocesses=2", "--no-loadscope-reorder"))])
    if any(style):
        print("style or type checks failed; see above the tests", file=sys.stderr)
    sys.exit(tests or max(style))
