"""How a host differs from what is wanted, in words; that they are true is for the hosts tests."""

import hashlib
from pathlib import Path
from typing import Any

from deploy import differences
from deploy.component import Archive, Component, File, Unit

_WANTED = Component(
    "part",
    packages=("one", "two"),
    files=(File("a.conf", "new"), File("b.conf", "same"), File("secret", "secret", 0o600)),
    units=(Unit("part.service"),),
    archives=(Archive("/opt/messwarte/part/2", lambda: Path("unused")),),
)


def _report(**found: Any) -> dict[str, Any]:
    same = f"{hashlib.sha256(b'same').hexdigest()} 644"
    then = {
        "digest": "of another time",
        "drift": [],
        "contents": {"a.conf": "of another time 644", "b.conf": same, "c.conf": same},
        "archives": ["/opt/messwarte/part/1"],
        "units": ["part.timer"],
    }
    return {"components": {"part": then | found}, "packages": ["one"], "archives": [], "wanted": ["part"]}


def test_news_name_files_programs_and_units_and_no_secret() -> None:
    assert differences.of_component(_WANTED, _report(drift=["/etc/x is missing"])) == [
        "/etc/x is missing",
        "a.conf changes",
        "c.conf goes",
        "/opt/messwarte/part/2 is new",
        "/opt/messwarte/part/1 goes",
        "part.service is new",
        "part.timer goes",
    ]


def test_what_is_as_wanted_differs_in_nothing() -> None:
    report = _report(digest=_WANTED.digest)
    assert differences.of_component(_WANTED, report) == []
    assert differences.of_host({"part": _WANTED}, ["part"], report) == {"packages": ["package two is missing"]}


def test_something_is_said_wherever_the_digest_is_another() -> None:
    """Of a component that is new, that was interrupted, or whose difference has no name."""
    nothing: dict[str, Any] = {"components": {}, "packages": [], "archives": [], "wanted": []}
    assert differences.of_component(_WANTED, nothing) == ["is not there yet"]
    assert differences.of_component(_WANTED, _report(digest=None)) == ["its deploy has not finished"]
    bare = Component("part", detail="another")
    assert differences.of_component(bare, _report(contents={}, archives=[], units=[])) == ["what is wanted is new"]


def test_many_differences_are_counted() -> None:
    said = [str(number) for number in range(12)]
    assert differences.shown(said[:10]) == said[:10]
    assert differences.shown(said, " (all: --json)") == [*said[:10], "2 more (all: --json)"]


def test_strays_are_components_and_what_an_interrupted_run_left() -> None:
    report = _report() | {"archives": [f"{differences.AHEAD}/hash"]}
    assert differences.strays(["part"], report) == [
        f"{differences.AHEAD}, left by a run that was interrupted, goes",
    ]
    assert differences.strays([], report)[0] == "part goes"
