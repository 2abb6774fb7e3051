"""`python -m dashboards` writes generated/*.json; `--check` only compares, and ends with 1 on drift."""

import argparse
import sys

import dashboards


def main() -> int:
    """Write or compare; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when the files are stale")
    if not parser.parse_args().check:
        dashboards.write()
        sys.stdout.write(f"wrote {', '.join(sorted(dashboards.build()))}\n")
        return 0
    drift = dashboards.check()
    for line in drift:
        sys.stderr.write(f"{line}; run: python -m dashboards\n")
    if not drift:
        sys.stdout.write("the committed dashboards are what is built\n")
    return 1 if drift else 0


if __name__ == "__main__":
    sys.exit(main())
