"""Where the secrets of one inventory lie: a file that only its owner can read."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml


class SecretsError(Exception):
    """A secrets file that cannot be used, or a secret that only the operator can give."""


class PlainFile:
    """YAML that lies open on the control machine, mode 0600."""

    def __init__(self, path: Path) -> None:
        """Take the file, which need not exist yet."""
        self.path = path

    def read(self) -> str:
        """Return the file's text. Raises SecretsError when others can read it."""
        if not self.path.exists():
            return ""
        if self.path.stat().st_mode & 0o077:
            raise SecretsError(f"{self.path} can be read by others; run: chmod 600 {self.path}")
        return self.path.read_text(encoding="utf-8")

    def write(self, changes: Mapping[str, str]) -> None:
        """Set entries, whole or not at all; all others, and the comments, stay."""
        replace(self.path, edited(self.read(), changes).encode())


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file from one moment to the next; a link stays, and what it leads to is written."""
    target = path.resolve()
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    Path(file.name).replace(target)


def edited(text: str, changes: Mapping[str, str]) -> str:
    """Return a YAML mapping's text with entries set where they stand, or added at its end."""
    result = text
    for name, value in changes.items():
        result = _with_entry(result, name, value)
    wanted = {**(yaml.safe_load(text) or {}), **changes}
    try:
        good = yaml.safe_load(result) == wanted
    except yaml.YAMLError:
        good = False
    # Lines cannot be put into every form that YAML has, `{a: b}` for one; then comments are lost, and values never.
    return result if good else yaml.safe_dump(wanted, allow_unicode=True)


def _with_entry(text: str, name: str, value: str) -> str:
    entry = _entry(name, value)
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, old in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == name:
            rest = text[old.end_mark.index :]
            if text[old.end_mark.index - 1] != "\n":
                entry = entry.removesuffix("\n")
            return f"{text[: key.start_mark.index]}{entry}{rest}"
    gap = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{gap}{entry}"


def _entry(name: str, value: str) -> str:
    tag = "tag:yaml.org,2002:str"
    scalar = yaml.ScalarNode(tag, value, style="|" if "\n" in value else None)
    pair = (yaml.ScalarNode(tag, name), scalar)
    return yaml.serialize(
        yaml.MappingNode("tag:yaml.org,2002:map", [pair]),
        Dumper=yaml.SafeDumper,
        allow_unicode=True,
        width=2**31,
    )
