"""`python3 -m erp serve|generate|load`."""

import argparse
import sys
from collections.abc import Sequence

import psycopg

from erp import ErpError, __version__, generate, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return 0, 1 with the reason on standard error, or 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="erp", description="The demo ERP of a food and chemicals maker.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("serve", help="answer requests; configured by environment variables, see README.md")
    generate.add_arguments(verbs.add_parser("generate", help="make tables and rows where there are none"))
    load.add_arguments(verbs.add_parser("load", help="send requests at a fixed rate and report latencies"))
    options = parser.parse_args(arguments)
    try:
        return {"serve": _serve, "generate": generate.run, "load": load.run}[options.verb](options)
    except ErpError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except psycopg.Error as error:
        print(f"error: the database: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def _serve(_: argparse.Namespace) -> int:
    from erp import config, modular_server  # noqa: PLC0415 - the other verbs need no web framework

    return modular_server.serve(config.load())


if __name__ == "__main__":
    sys.exit(main())
