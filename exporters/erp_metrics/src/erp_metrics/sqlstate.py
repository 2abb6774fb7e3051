"""Errors of queries by the class of their SQLSTATE, which is bounded."""

import asyncio
import re

CANCELLED, NO_SQLSTATE, UNKNOWN = "cancelled", "none", "other"

# Those that an ERP meets: constraints, deadlocks and serialization, locks not available, timeouts, lost connections.
COMMON = ("23", "40", "55", "57", NO_SQLSTATE)

# Those of appendix A of PostgreSQL's manual; `RAISE ... USING ERRCODE` may give any other.
_CLASS = re.compile(r"0[012389ABFLPZ]|10|2[0-8BDF]|3[489BDF]|4[024]|5[34578]|72|F0|HV|P0|XX")


def class_of(error: BaseException) -> str:
    """Return the class of a driver's error: two characters, or why it has none."""
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED
    # psycopg and asyncpg call it sqlstate, psycopg2 pgcode.
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if not isinstance(state, str):
        return NO_SQLSTATE
    return state[:2] if _CLASS.match(state) else UNKNOWN
