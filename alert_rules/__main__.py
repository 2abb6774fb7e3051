"""`python -m alert_rules` writes the committed renderings; `--check` only compares, and ends with 1 on drift."""

import argparse
import shutil
import sys

from alert_rules import goldens


def main() -> int:
    """Write or compare; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m alert_rules", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when the files are stale")
    if not parser.parse_args().check:
        for line in goldens.write():
            sys.stderr.write(f"{line}\n")
        return 0
    amtool = shutil.which("amtool")
    drift = goldens.stale(goldens.files() | (goldens.messages(amtool) if amtool else {}))
    for name in drift:
        sys.stderr.write(f"alert_rules/{name} differs from what is rendered; run: python -m alert_rules\n")
    if not drift:
        compared = "" if amtool else ", messages apart: amtool, which renders them, is not there"
        sys.stdout.write(f"the committed renderings are what is rendered{compared}\n")
    return 1 if drift else 0


if __name__ == "__main__":
    sys.exit(main())
