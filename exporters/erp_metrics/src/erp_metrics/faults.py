"""Measuring must never break what it measures: faults of ours are logged once per place and swallowed."""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

log = logging.getLogger("erp_metrics")

_P = ParamSpec("_P")
_R = TypeVar("_R")
_seen: set[str] = set()


def fails_open(function: Callable[_P, _R]) -> Callable[_P, _R | None]:
    """Make a function return None where it would raise; the first fault in it is logged."""

    @functools.wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return function(*args, **kwargs)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the application goes on
            report(function.__qualname__, fault)
            return None

    return guarded


def report(place: str, fault: BaseException) -> None:
    """Log a fault of ours, once per place: a hot path must not fill the disk."""
    if place not in _seen:
        _seen.add(place)
        log.error("measuring failed in %s; the application goes on without", place, exc_info=fault)


def forget() -> None:
    """Let every place log again; for tests."""
    _seen.clear()
