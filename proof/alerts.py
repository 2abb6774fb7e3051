"""Fires the ERP's alerts by real trouble, and follows each to the mailbox and back to rest."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from lab import Machine
from lab.system import LabTimeoutError, Progress, wait_until
from proof import disturbances, mail
from proof.grafana import Grafana
from proof.prometheus import Prometheus

PROVED = ("ErpSlowQuery", "ErpManySlowQueries", "ErpEndpointQueryRate")
_MINUTES = 4 * 60


@dataclass
class Stack:
    """A deployed stack: how each part is reached, the ERP by options of `erp load`."""

    database: Machine
    mailbox: Machine
    erp: list[str]
    prometheus: Prometheus
    grafana: Grafana | None


@dataclass
class Course:
    """How one alert went; `trouble` is what was wrong with its mails."""

    alert: str
    fired: bool = False
    resolved: bool = False
    trouble: list[str] = field(default_factory=list)

    def shortcomings(self) -> list[str]:
        """Return what speaks against it."""
        missing = {"no mail when it fired": self.fired, "no mail when it was over": self.resolved}
        return [*(what for what, seen in missing.items() if not seen), *self.trouble]


def prove(stack: Stack, progress: Progress) -> list[Course]:
    """Drive the trouble until each alert's mail is there, end it, and wait until each is resolved by mail."""
    before = len(mail.read(stack.mailbox))
    courses = {name: Course(name) for name in PROVED}

    def arrived(status: str) -> Callable[[], bool]:
        def check() -> bool:
            found = [one for one in mail.read(stack.mailbox)[before:] if one.alert in courses and one.status == status]
            for one in found:
                _note(courses[one.alert], one, stack, progress)
            return {one.alert for one in found} == set(PROVED)

        return check

    with (
        disturbances.requests(stack.erp, "posting", 8, 2 * _MINUTES),
        disturbances.requests(stack.erp, "burst", 40, 2 * _MINUTES),
    ):
        check = arrived("firing")

        def trouble_until_all_fire() -> bool:
            if not courses["ErpManySlowQueries"].fired:
                disturbances.slow_postings(stack.database)
            return check()

        _wait(trouble_until_all_fire)
    _wait(arrived("resolved"))
    return list(courses.values())


def _note(course: Course, message: mail.Mail, stack: Stack, progress: Progress) -> None:
    """Judge a message when it is seen for the first time."""
    seen = course.fired if message.status == "firing" else course.resolved
    if seen:
        return
    progress(f"mail: {message.subject}")
    if message.status == "firing":
        course.fired = True
        if "What to do" not in message.text:
            course.trouble.append("the mail holds no runbook")
    else:
        course.resolved = True
    if stack.grafana:
        dead = stack.grafana.dead_links(message.links)
        course.trouble += [f"a link leads nowhere: {link}" for link in dead]
        if not message.links:
            course.trouble.append("the mail has no link")


def _wait(condition: Callable[[], bool]) -> None:
    # Each course tells what is missing.
    with contextlib.suppress(LabTimeoutError):
        wait_until(condition, "mails", _MINUTES, 0.5)
