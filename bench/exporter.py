"""Our exporter beside postgres_exporter, sql_exporter and query-exporter: the same facts of one database, in turns.

One PostgreSQL 17 with the peers' programs, from a tree of Debian 13; one database, whose tables become more. The facts
are in exporter_facts.yml, and each side is asked whether it has them for every table. All sides stand still (SIGSTOP)
but for the one whose turn it is, so that what is measured is its own. A turn begins with a change in a table: what
reads in the background is overdue by then and begins to read, and scrapes go on one after the other until one shows
the change; then come some at rest. Thus

- `p50` is of scrapes at rest, `p99` of all; in a turn a far greater part of scrapes meets background work than in life,
- `refresh` is how long it took at worst from being due until a scrape showed it, and `freshness` that and the interval:
  how old an answer's oldest data are at worst. For the run the interval is short, stated here is that of real use,
- `server seconds` are the CPU time of all the server's processes, connecting included: of scrapes at rest, and of the
  background's work beyond those, each as often as an hour has them.

Slow peers get fewer scrapes, as `scrapes` tells. Memory is VmHWM, connections are counted every 10 ms.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench import exporter_erp, exporter_turns
from bench.exporter_process import MARK, ServerWatch
from bench.exporter_sides import OURS, POSTGRES_EXPORTER, SIDES, tree, versions
from bench.exporter_turns import DATABASE, SCRAPE_SECONDS, SLOW_SECONDS, Ground
from bench.report import Target, as_json, say
from lab.postgresql import Installation, PostgresServer, postgres_server
from lab.system import require
from lab.trees import kept

SIZES = (100, 500, 5000, 10_000)
_ROUNDS = 5
_CONFIGURATION = """
shared_preload_libraries = 'pg_stat_statements'
max_connections = 50
max_locks_per_transaction = 512
autovacuum = off
"""
_AT_500, _AT_10000 = 500, 10_000


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    sizes: Sequence[int]
    scrapes: int
    rounds: int
    minutes: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark as root; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="bench exporter", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--tables", type=int, nargs="+", default=SIZES, help="how many there are, one size after another"
    )
    parser.add_argument("--scrapes", type=int, default=50, help="of ours at rest, at each size (50)")
    parser.add_argument("--quick", action="store_true", help="two small sizes and a few scrapes: whether it runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(argv)
    wanted = Options(sorted(given.tables), given.scrapes, _ROUNDS, 1.0)
    options = Options((20, 40), 6, 2, 0.1) if given.quick else wanted
    require(say)
    with kept(tree(), say) as found, _server(found) as server:
        figures = _measure(server, found, options)
        shown = versions(found)
    targets = _targets(figures)
    if given.json:
        print(as_json(shown, figures, targets))  # noqa: T201
    else:
        print("demo ERP:", ", ".join(f"{value} {name}" for name, value in figures["demo ERP"].items()))  # noqa: T201
        print(*targets, sep="\n")  # noqa: T201
    return 0 if all(target.ok for target in targets) else 1


def _server(found: Path) -> contextlib.AbstractContextManager[PostgresServer]:
    installation = Installation(Path("/usr/lib/postgresql/17/bin"), found)
    return postgres_server(installation, _CONFIGURATION, "-A", "trust", "--locale=C.UTF-8")


def _measure(server: PostgresServer, found: Path, options: Options) -> dict[str, Any]:
    watch = ServerWatch(server)
    exporter_erp.build(server)
    say("the demo ERP: an hour's scrapes in a minute")
    erp = exporter_erp.hour(server, watch, options.minutes)
    server.execute(f"CREATE DATABASE {DATABASE}")
    for side in SIDES:
        server.execute(f"CREATE ROLE {side.role} LOGIN; GRANT pg_monitor TO {side.role}")
    ground = Ground(server, watch, found)
    sizes: dict[str, Any] = {}
    for size in options.sizes:
        say(f"{size} tables")
        names = _tables(server, size)
        sizes[str(size)] = exporter_turns.measure(ground, names, options.scrapes, options.rounds)
        say("\n".join(_lines(size, sizes[str(size)])))
    return {
        "interval of scrapes": SCRAPE_SECONDS,
        "interval of slow readings": SLOW_SECONDS,
        "load of the machine, 1 minute": round(os.getloadavg()[0], 2),
        "demo ERP": erp,
        "tables": sizes,
    }


def _tables(server: PostgresServer, size: int) -> list[str]:
    """Make the tables that lack, each with a row and its statistics; return the names of all."""
    names = [MARK, *(f"artikel_{number:05}" for number in range(1, size))]
    have = {name for (name,) in server.execute("SELECT relname FROM pg_stat_user_tables", DATABASE)}
    new = [name for name in names if name not in have]
    with psycopg.connect(server.dsn(DATABASE), autocommit=True) as connection:
        for begin in range(0, len(new), 250):
            some = new[begin : begin + 250]
            made = (
                "CREATE TABLE {0} (id int PRIMARY KEY, name text, menge numeric); INSERT INTO {0} VALUES (0, 'x', 1);"
            )
            connection.execute("".join(made.format(name) for name in some).encode())
            connection.execute(f"VACUUM (ANALYZE) {', '.join(some)}".encode())
    return names


def _targets(figures: dict[str, Any]) -> list[Target]:
    erp, sizes = figures["demo ERP"], figures["tables"]
    targets = []
    if at_500 := sizes.get("500"):
        ours, other = at_500[OURS.name], at_500[POSTGRES_EXPORTER.name]
        ratio = round(ours["p50 ms"] / other["p50 ms"], 3)
        targets += [
            Target("time of a response at 500 tables, ours against postgres_exporter's, p50", ratio, 0.5),
            Target("MB of ours at 500 tables", ours["MB"], 60),
        ]
    if at_most := sizes.get("10000"):
        ours = at_most[OURS.name]
        targets += [
            Target("ms of a response at 10,000 tables, p99", ours["p99 ms"], 300),
            Target("seconds that the oldest data are old at 10,000 tables, at worst", ours["freshness s"], 300),
        ]
    percent = round(erp["server seconds an hour"] / 36, 3)
    lacking = sum(len(one[OURS.name]["lacks"]) for one in sizes.values())
    return [
        *targets,
        Target("% of a core of the server for the demo ERP", percent, 0.1),
        Target("series of the demo ERP", erp["series"], 3000),
        Target("declared facts that ours lacks for a table", lacking, 0),
        Target("collectors that fail on the demo ERP", len(erp["failed"]), 0),
    ]


def _lines(size: int, sides: dict[str, dict[str, Any]]) -> Iterator[str]:
    columns = ("p50 ms", "p99 ms", "server s/h", "freshness s", "connections", "MB", "series", "scrapes", "lacks")
    yield f"{size} tables".ljust(18) + "".join(f"{column:>12}" for column in columns)
    for name, one in sides.items():
        cells = (len(one[column]) if column == "lacks" else one[column] for column in columns)
        yield f"{name:18}" + "".join(f"{cell:>12}" for cell in cells)


if __name__ == "__main__":
    sys.exit(main())
