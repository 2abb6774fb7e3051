"""The way into an existing PostgreSQL: as its administrator by DSN, then as the monitoring role, and from its host."""

import inspect
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError

from attach import AttachError, knock
from attach.postgresql import ROLE
from settings.model import ExistingPostgreSQL

_NAME = "messwarte attach"
_SECONDS = 10

Parameters = dict[str, Any]


class DsnError(AttachError):
    """What is wrong with a connection string; never repeats any of it."""


class PasswordNeededError(AttachError):
    """The server asks for a password, and none was given."""


def parse(dsn: str) -> Parameters:
    """Return libpq's parameters of a connection string. Raises DsnError, also for one that holds a password."""
    try:
        parameters = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # libpq's message may repeat a part of the string, and with it a secret.
        raise DsnError(
            "must be a libpq connection string, such as `host=db dbname=erp user=postgres` or postgresql://postgres@db/erp"
        ) from None
    if secrets := sorted({"password", "sslpassword"} & parameters.keys()):
        raise DsnError(
            f"holds a {secrets[0]}, which every user of this machine can read in the list of processes; change it there"
        )
    return parameters


def connect(parameters: Parameters, password: str | None) -> psycopg.Connection[Any]:
    """Return a session of the administrator. Raises PasswordNeededError where one is asked for, and none given."""
    wanted: Parameters = {"connect_timeout": _SECONDS, "application_name": _NAME} | parameters | {"password": password}
    try:
        return psycopg.connect(**wanted, autocommit=True)
    except psycopg.OperationalError as error:
        if password is None and error.pgconn is not None and error.pgconn.needs_password:
            raise PasswordNeededError("the server asks for a password") from None
        raise AttachError(" ".join(str(error).split())) from None


def existing(connection: psycopg.Connection[Any], address: str | None) -> ExistingPostgreSQL:
    """Return the settings that lead to a session's database; `address` where others reach it by another one."""
    host, port = connection.info.host, connection.info.port
    if address is None and host.startswith("/"):
        raise AttachError("the DSN leads to a socket of this machine; say with --address HOST:PORT how others reach it")
    address = address or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    try:
        return ExistingPostgreSQL(address=address, database=connection.info.dbname)
    except ValidationError as error:
        raise AttachError(f"{address}: {error.errors()[0]['msg']}") from None


def with_tls(there: ExistingPostgreSQL, parameters: Parameters, *, encrypted: bool) -> ExistingPostgreSQL:
    """Return the settings with no less TLS than the administrator asked for, and no less than was seen to work."""
    root = parameters.get("sslrootcert")
    if parameters.get("sslmode") == "verify-full":
        found = {"sslmode": "verify-full", "ca": str(Path(root).resolve()) if root and root != "system" else None}
    else:
        found = {"sslmode": "require" if encrypted else "prefer"}
    return there.model_copy(update=found)


def login(parameters: Parameters, there: ExistingPostgreSQL, password: str) -> tuple[str, bool]:
    """Return why the role cannot log in from here (empty: it can), and whether its session is encrypted."""
    kept = {key: value for key, value in parameters.items() if key in {"sslmode", "sslrootcert", "sslcrl"}}
    host, port = _parts(there)
    wanted: Parameters = kept | {"host": host, "port": port, "dbname": there.database, "user": ROLE}
    wanted |= {"password": password, "connect_timeout": _SECONDS, "application_name": _NAME}
    try:
        with psycopg.connect(**wanted) as connection:
            return "", bool(connection.pgconn.ssl_in_use)
    except psycopg.Error as error:
        return " ".join(str(error).split()), False


def from_host(shell: Sequence[str], there: ExistingPostgreSQL) -> str:
    """Return `ok` when the role may come from a host, which is asked by a command that runs another there."""
    host, port = _parts(there)
    call = f"main({host!r}, {port}, {there.database!r}, {ROLE!r}, {there.sslmode != 'prefer'})"
    program = f"python3 -I -c {shlex.quote(inspect.getsource(knock) + call)}"
    done = subprocess.run([*shell, program], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return next(reversed((done.stdout.strip() or done.stderr.strip()).splitlines()), "it does not answer")


def _parts(there: ExistingPostgreSQL) -> tuple[str, int]:
    host, _, port = there.address.rpartition(":")
    return host.strip("[]"), int(port)
