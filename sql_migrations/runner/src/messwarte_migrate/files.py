"""Reading a directory of migrations: names, header directives, checksums; what is wrong is told before connecting."""

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from messwarte_migrate import MigrationError
from messwarte_migrate.statements import Statement, split

_VERSIONED = re.compile(r"V(\d{4})__[a-z0-9_]+\.sql")
_REPEATABLE = re.compile(r"R__[a-z0-9_]+\.sql")
_DIRECTIVE = re.compile(r"--\s*([a-z_]+)\s*:\s*(.*?)\s*")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h)")
_UNITS = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3600}
_DIRECTIVES = ("transaction", "lock_timeout", "statement_timeout")


@dataclass(frozen=True)
class Migration:
    """One file; `version` is None for a repeatable one. Times in seconds, None where the file says nothing."""

    file: str
    version: int | None
    text: str
    checksum: str
    transactional: bool = True
    lock_timeout: float | None = None
    statement_timeout: float | None = None

    @property
    def statements(self) -> list[Statement]:
        """The file's statements."""
        return split(self.text)


def duration(text: str) -> float:
    """Return the seconds of `500ms`, `5s`, `2m` or `12h`, or raise ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no duration such as 500ms, 5s, 2m or 12h")
    return float(found[1]) * _UNITS[found[2]]


def load(directory: Path) -> list[Migration]:
    """Return versioned migrations in order, then repeatable ones by name, or raise MigrationError with every fault."""
    folders = {directory / "versioned": _VERSIONED, directory / "repeatable": _REPEATABLE}
    if not any(folder.is_dir() for folder in folders):
        raise MigrationError(f"{directory}: holds neither versioned/ nor repeatable/")
    problems: list[str] = []
    migrations: list[Migration] = []
    for folder, pattern in folders.items():
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix != ".sql":
                continue
            name = pattern.fullmatch(path.name)
            if not name:
                wanted = "V0001__name.sql" if pattern is _VERSIONED else "R__name.sql"
                problems.append(f"{path}: not a name of the form {wanted} (small letters, digits and _)")
                continue
            try:
                migrations.append(_read(path, int(name[1]) if pattern is _VERSIONED else None))
            except MigrationError as error:
                problems.append(str(error))
    problems += _numbering([one for one in migrations if one.version is not None])
    if problems:
        raise MigrationError("\n".join(problems))
    return migrations


def _numbering(versioned: list[Migration]) -> list[str]:
    problems = []
    by_version: dict[int, str] = {}
    for one in versioned:
        version = one.version or 0
        if version in by_version:
            problems.append(f"{by_version[version]} and {one.file} have the same version; renumber the newer one")
        by_version.setdefault(version, one.file)
    gaps = set(range(1, max(by_version, default=0))).difference(by_version)
    problems += [f"V{gap:04d} is missing, though there are later ones; versions have no gaps" for gap in sorted(gaps)]
    if 0 in by_version:
        problems.append(f"{by_version[0]}: versions begin with V0001")
    return problems


def _read(path: Path, version: int | None) -> Migration:
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise MigrationError(f"{path}: not UTF-8: {error}") from None
    checksum = hashlib.sha256(text.encode()).hexdigest()
    try:
        directives = _directives(text)
        transactional = directives.pop("transaction", "") != "none"
        times = {name: duration(value) for name, value in directives.items()}
    except ValueError as error:
        raise MigrationError(f"{path}: {error}") from None
    migration = Migration(path.name, version, text, checksum, transactional, **times)
    _check(path, migration)
    return migration


def _directives(text: str) -> dict[str, str]:
    """Return the header's directives; other comments are fine, a mistyped directive is not."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("--"):
            break
        match = _DIRECTIVE.fullmatch(line)
        if not match:
            continue
        name, value = match.groups()
        if name in found:
            raise ValueError(f"{name} is set twice")
        if name == "transaction" and value != "none":
            raise ValueError(f"transaction: {value!r} is unknown; there is only none")
        if name in _DIRECTIVES:
            found[name] = value
        elif near := difflib.get_close_matches(name, _DIRECTIVES, 1):
            raise ValueError(f"unknown directive {name}; did you mean {near[0]}?")
    return found


def _check(path: Path, migration: Migration) -> None:
    statements = migration.statements
    if not statements:
        raise MigrationError(f"{path}: holds no statement")
    for statement in statements:
        where = f"{path}, line {statement.line}"
        if statement.bare.startswith("\\"):
            raise MigrationError(f"{where}: psql's own commands are not SQL")
        if statement.controls_transaction:
            raise MigrationError(f"{where}: the runner begins and ends transactions; take it out")
        if migration.transactional and statement.needs_no_transaction:
            raise MigrationError(f"{where}: cannot run inside a transaction; begin the file with -- transaction: none")
