"""Replacing methods of classes that are not ours, so that it can be undone."""

from collections.abc import Callable
from typing import Any

_replaced: list[tuple[type, str, Any]] = []
_undo: list[Callable[[], None]] = []


def replace(owner: type, name: str, wrap: Callable[[Any], Any]) -> None:
    """Wrap a method that a class itself defines; one that it does not define is left alone."""
    original = vars(owner).get(name)
    if original is not None and not any(o is owner and n == name for o, n, _ in _replaced):
        setattr(owner, name, wrap(original))
        _replaced.append((owner, name, original))


def on_undo(function: Callable[[], None]) -> None:
    """Remember what else takes our hooks out again."""
    _undo.append(function)


def installed() -> bool:
    """Tell whether anything is hooked."""
    return bool(_replaced or _undo)


def mark() -> tuple[int, int]:
    """Return how far we are, for `undo`."""
    return len(_replaced), len(_undo)


def undo(until: tuple[int, int] = (0, 0)) -> None:
    """Put originals back: every one, or those replaced since a mark."""
    while len(_replaced) > until[0]:
        owner, name, original = _replaced.pop()
        setattr(owner, name, original)
    while len(_undo) > until[1]:
        _undo.pop()()
