"""messwarte-backup: PostgreSQL's backups, restores and drills on the database host."""

import argparse
import os
import sys

from deploy.backup.host import backup, drill, recover, restore
from deploy.backup.host.system import BackupError


def main() -> None:
    """Do what the verb says; ends with 1 and the reason on failure."""
    os.umask(0o077)
    parser = argparse.ArgumentParser(prog="messwarte-backup", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("enroll", help="give the database its place").add_argument("place")
    verbs.add_parser("run", help="make a backup").add_argument("kind", choices=["full", "differential"])
    for verb, meaning in (
        ("info", "what can be restored"),
        ("need-backup", "end with 1 when there is no backup yet"),
        ("ready", "end with 1 when WAL is not archived"),
        ("drill", "try out a restore"),
        ("undo", "give the data before a restore their place back"),
    ):
        verbs.add_parser(verb, help=meaning)
    for verb, meaning in (
        ("check", "what a restore would do"),
        ("recover", "restore while PostgreSQL is stopped"),
        ("restore", "as root: stop PostgreSQL, restore, start it"),
    ):
        one = verbs.add_parser(verb, help=meaning)
        one.add_argument("--to", default="latest", help="`latest`, or a moment: 2026-11-25 01:02:03+00")
        one.add_argument("--timeline", type=int, help="the history to follow, where a restore began a new one (newest)")
    try:
        _do(parser.parse_args())
    except (BackupError, OSError) as error:
        sys.exit(f"messwarte-backup: {error}")


def _do(options: argparse.Namespace) -> None:
    if options.verb == "enroll":
        backup.enroll(options.place)
    elif options.verb == "run":
        backup.make(options.kind)
    elif options.verb in {"check", "recover"}:
        wanted = recover.target(options.to, options.timeline)
        (recover.check if options.verb == "check" else recover.recover)(wanted)
    elif options.verb == "restore":
        restore.restore(sys.argv[2:])
    else:
        {
            "info": backup.show,
            "need-backup": backup.need_backup,
            "ready": backup.ready,
            "drill": drill.drill,
            "undo": recover.undo,
        }[options.verb]()


if __name__ == "__main__":
    main()
