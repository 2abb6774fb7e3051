"""Writes docs/settings.md from the settings' own model: `python -m settings.reference`, or `--check` for drift."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from settings import values
from settings.model import Settings

TARGET = Path(__file__).resolve().parent.parent / "docs/settings.md"
_HEAD = """\
# Settings

<!-- Written by `python -m settings.reference` from settings/model.py; do not edit. -->

One YAML file beside the inventory. What it leaves out has the default below; an unknown or ill-typed setting stops
the run before any host is touched. Durations are `250ms`, `15s`, `5m`, `12h`, `90d`; sizes are `512MB`, `8GB`, `1TB`
(powers of 1024). Passwords are no settings: they are in the secrets file, which the first run makes.
"""
_TABLE = "\n| Setting | Type | Default | Meaning |\n|---|---|---|---|\n"
_KINDS = {
    values.duration: "duration",
    values.retention: "duration, at least `2h`",
    values.size: "size",
    values.url: "URL",
    values.host_port: "`host:port`",
    values.mail_address: "mail address",
    values.network: "IPv4 network",
    values.folder: "folder",
    values.calendar: "calendar event",
    values.host_key: "public key",
}
_NAMES = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text"}


def render() -> str:
    """Return the whole page."""
    plain = {name: field for name, field in Settings.model_fields.items() if not values.model_of(Settings, name)}
    parts = [_HEAD]
    for name in Settings.model_fields:
        section = values.model_of(Settings, name)
        if section:
            parts.append(f"\n## {name}\n\n{section.__doc__}\n{_TABLE}" + "".join(_rows(section, f"{name}.")))
    parts.append(f"\n## Further settings\n{_TABLE}" + "".join(_row(name, field) for name, field in plain.items()))
    return "".join(parts)


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = values.model_of(model, name)
        if inner is None:
            yield _row(f"{prefix}{name}", field)
            continue
        if field.default is None:
            kind = "section" if inner.model_fields else "`{}`"
            yield _line(f"{prefix}{name}", kind, "absent", field.description or "")
        yield from _rows(inner, f"{prefix}{name}.")


def _row(name: str, field: FieldInfo) -> str:
    return _line(name, _type(field), _default(field.default), field.description or "")


def _line(*cells: str) -> str:
    name, *others = (cell.replace("|", "\\|") for cell in cells)
    return f"| `{name}` | {' | '.join(others)} |\n"


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{words} {getattr(rule, key):g}"
        for rule in field.metadata
        for key, words in (("ge", "from"), ("gt", "above"), ("le", "to"))
        if getattr(rule, key, None) is not None
    ]
    return " ".join([_kind(field.annotation, field.metadata), *bounds])


def _kind(annotation: Any, metadata: Any = ()) -> str:
    for rule in metadata:
        if (check := getattr(rule, "func", None)) in _KINDS:
            return _KINDS[check]
    if hasattr(annotation, "__metadata__"):
        return _kind(annotation.__origin__, annotation.__metadata__)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _kind(next(one for one in arguments if one is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    of = [_kind(one) for one in arguments]
    return {list: "list, each a {}", dict: "{} to {}"}[origin].format(*of) if origin else _NAMES[annotation]


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def main() -> None:
    """Write the page, or say whether it is up to date."""
    arguments = argparse.ArgumentParser(prog="python -m settings.reference", description=__doc__)
    arguments.add_argument("--check", action="store_true", help="change nothing; exit 1 when the page has drifted")
    if not arguments.parse_args().check:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(render(), encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != render():
        sys.exit(f"{TARGET.name} is not what the settings say; run: python -m settings.reference")


if __name__ == "__main__":
    main()
