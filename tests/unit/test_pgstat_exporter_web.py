"""The exporter's door and its log, whatever comes from outside."""

import base64
import errno
import io
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest
import yaml

from pgstat_exporter import log
from pgstat_exporter.strict import Problem
from pgstat_exporter.web_config import Doorkeeper


@pytest.fixture
def doorkeeper(tmp_path: Path) -> Doorkeeper:
    """One who knows one user."""
    path = tmp_path / "web.yml"
    users = {"prometheus": bcrypt.hashpw(b"geheim", bcrypt.gensalt(4)).decode()}
    path.write_text(yaml.safe_dump({"basic_auth_users": users}))
    return Doorkeeper(str(path))


def basic(text: str) -> str:
    """Return the header of a user and a password."""
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    "header", [None, "", "Basic", "Basic \xfc\xfc", "Basic %%", "Basic /w==", "Bearer x", basic("x")]
)
def test_what_is_no_login_is_refused(doorkeeper: Doorkeeper, header: str | None) -> None:
    """With an answer, not with a fault of ours."""
    assert not doorkeeper.lets_in(header)
    assert doorkeeper.lets_in(basic("prometheus:geheim"))


def test_a_password_in_place_of_its_hash_is_not_repeated(tmp_path: Path) -> None:
    """Neither as a number nor as a text."""
    path = tmp_path / "web.yml"
    for wrong in ("4711", "geheim4711"):
        path.write_text(f"basic_auth_users: {{prometheus: {wrong}}}\n")
        with pytest.raises(Problem, match="basic_auth_users") as problem:
            Doorkeeper(str(path))
        assert "4711" not in str(problem.value)


def test_guessed_passwords_are_checked_one_at_a_time(doorkeeper: Doorkeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking takes a processor; who is known waits for none of it."""
    assert doorkeeper.lets_in(basic("prometheus:geheim"))
    busy = threading.Lock()
    together = []

    def check(*_: bytes) -> bool:
        alone = busy.acquire(blocking=False)
        time.sleep(0.02)
        together.append(not alone)
        if alone:
            busy.release()
        return False

    monkeypatch.setattr(bcrypt, "checkpw", check)
    with ThreadPoolExecutor(8) as pool:
        guessed = [pool.submit(doorkeeper.lets_in, basic(f"prometheus:{number}")) for number in range(8)]
        assert doorkeeper.lets_in(basic("prometheus:geheim"))
        assert not any(one.result() for one in guessed)
    assert together == [False] * 8


class Full(io.StringIO):
    """A full disk."""

    def write(self, _: str) -> int:
        """Find no room."""
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_finds_no_room_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk does not end what wanted to say something."""
    monkeypatch.setattr(sys, "stderr", Full())
    log.write("error", "the disk is full")


def test_a_name_cannot_disguise_a_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What a terminal would obey, or take for a new line, is written as its code."""
    log.write("warning", "tables in a\x1b[2J\rlevel=info\u2028b: gone")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('msg="tables in a\\x1b[2J\\rlevel=info\\u2028b: gone"')
