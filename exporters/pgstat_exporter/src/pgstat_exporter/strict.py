"""YAML read strictly: an unknown, doubled or ill-typed setting is an error that names its place and what is right."""

import difflib
import re
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Their values are not repeated: who mistypes them may have put a password there. Nor is what holds other settings.
_SECRET = frozenset({"dsn", "basic_auth_users"})
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")


class Strict(BaseModel):
    """A mapping in which every key and every type must be right."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Problem(Exception):  # noqa: N818 - it is shown to people as it is
    """What is wrong in a file, one line per fault: file, setting, and what would be right."""


def _seconds(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError("must be a duration such as 500ms, 2s, 1m or 1h")
    return float(found[1]) * _UNITS[found[2]]


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0.001, le=86400)]
"""Seconds; written as a number, or with one of the units ms, s, m and h."""

# What pydantic calls by Python's names.
_WORDS = {
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of settings",
    "too_short": "must not be empty",
    "string_type": "must be text",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
}

Model = TypeVar("Model", bound=Strict)


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is set twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def read(model: type[Model], text: str, where: str) -> Model:
    """Return a model from YAML text, or raise Problem naming each fault's place in the file `where`."""
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Problem(f"{where}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        # PyYAML lets through what Python says to a 13th month, to a mapping as a key, and to endless nesting.
        raise Problem(f"{where}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise Problem(f"{where}: must be a mapping of settings; {_names(model.model_fields)}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = error.errors()
        said = (_fault(fault, model) for fault in faults if not _follows(fault, faults))
        raise Problem("\n".join(f"{where}: {one}" for one in said)) from None


def _follows(fault: Any, faults: Sequence[Any]) -> bool:
    """Return whether a list is said to be too short only because what is in it is wrong."""
    place = fault["loc"]
    inside = (one for one in faults if one is not fault and one["loc"][: len(place)] == place)
    return fault["type"] == "too_short" and any(inside)


def _fault(fault: Any, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    key = str(fault["loc"][-1]) if fault["loc"] else ""
    match fault["type"]:
        case "extra_forbidden":
            return f"{path}: no such setting; {unknown(key, _siblings(model, fault['loc']))}"
        case "missing":
            return f"{path}: is missing"
        case "value_error":
            return f"{path}: {fault['ctx']['error']}" if path else str(fault["ctx"]["error"])
    if words := _WORDS.get(fault["type"]):
        said = f"{path}: {words.format(**fault.get('ctx', {}))}"
    else:
        said = f"{path}: {fault['msg'].replace('Input should be', 'must be')}"
    if _SECRET.intersection(fault["loc"]) or isinstance(fault["input"], dict | list):
        return said
    return f"{said}, not {fault['input']!r}"


def unknown(name: str, known: Iterable[str]) -> str:
    """Return the advice for a name that does not exist: the nearest one, else all there are."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, 1)
    return f"did you mean {near[0]}?" if near else _names(choices)


def _names(known: Collection[str]) -> str:
    return f"there are {', '.join(sorted(known))}" if known else "there are none"


def _siblings(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the fields of the innermost model that a fault's location leads into."""
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        inner = _inner(field.annotation) if field else None
        model = inner or model
    return list(model.model_fields)


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_inner(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)
