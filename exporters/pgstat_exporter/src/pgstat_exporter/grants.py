"""What a monitoring role may do: the least that the collectors' declarations ask for, as SQL."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import Identifier

from pgstat_exporter.config import Enabled, Target
from pgstat_exporter.content import Collector

ROLE, DATABASE, SCHEMA = "messwarte_monitor", "erp", "public"
_ALL = "pg_monitor"
# Not for monitoring alone: it reads every row of every table.
DATA_ROLE = "pg_read_all_data"
_ON = {"role": "", "database": "CONNECT ON DATABASE ", "schema": "USAGE ON SCHEMA "}


@dataclass(frozen=True)
class Grant:
    """One privilege: membership in a role, CONNECT on a database or USAGE on a schema; `why` says for what."""

    kind: Literal["role", "database", "schema"]
    name: str
    why: str

    def sql(self, role: str) -> str:
        """Return the statement that gives it."""
        return f"GRANT {self._what()} TO {quoted(role)}"

    def revoking(self, role: str) -> str:
        """Return the statement that takes it away."""
        return f"REVOKE {self._what()} FROM {quoted(role)}"

    def _what(self) -> str:
        return f"{_ON[self.kind]}{quoted(self.name)}"


def needed(
    collectors: Iterable[Collector], database: str = DATABASE, schema: str | None = SCHEMA, *, data: bool = False
) -> list[Grant]:
    """Return what collectors need; `schema` is that of their extensions in `database`, None without one.

    Only with `data`: the role that reads all tables. Without it, what needs it is skipped.
    """
    chosen = [one for one in collectors if data or one.declaration.role != DATA_ROLE]
    asked = {one.name: role for one in chosen if (role := one.declaration.role)}
    # It is a member of all the others that measure.
    found = set(asked.values())
    roles = sorted(found & {_ALL, DATA_ROLE} if _ALL in found else found)
    extensions = sorted({extension for one in chosen if (extension := one.declaration.extension)})
    grants = [Grant("role", role, ", ".join(_names(asked, role))) for role in roles]
    grants.append(Grant("database", database, "all collectors"))
    if extensions and schema:
        grants.append(Grant("schema", schema, f"in that database: {', '.join(extensions)}"))
    return grants


def _names(asked: Mapping[str, str], role: str) -> list[str]:
    return [name for name, wish in asked.items() if wish == role or (role == _ALL and wish != DATA_ROLE)]


def of_target(target: Target, collectors: Iterable[Enabled], schema: str = SCHEMA, *, data: bool = False) -> str:
    """Return the SQL for the role and database of a server's DSN and the collectors that are on."""
    parameters = conninfo_to_dict(target.dsn)
    role, database = str(parameters.get("user") or ROLE), str(parameters.get("dbname") or DATABASE)
    wanted = [one.collector for one in collectors]
    script = text(needed(wanted, database, schema, data=data), role)
    left = [one.name for one in wanted if one.declaration.role == DATA_ROLE]
    if left and not data:
        script += f"\n-- Without {DATA_ROLE}, which --data adds, these are skipped: {', '.join(left)}."
    return script


def text(grants: Iterable[Grant], role: str = ROLE) -> str:
    """Return grants as an SQL script that says what each is for."""
    return "\n".join(f"-- {one.why}\n{one.sql(role)};" for one in grants)


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return Identifier(name).as_string(None)
