"""The launcher and the verbs, seen from outside."""

import importlib
import subprocess
from pathlib import Path

import click
import pytest

from cli.__main__ import VERBS

ROOT = Path(__file__).resolve().parents[2]


def test_launcher_lists_every_verb() -> None:
    """A newcomer's first command works and names what there is."""
    run = subprocess.run([ROOT / "messwarte", "--help"], capture_output=True, text=True, check=True, cwd="/")
    for verb in VERBS:
        assert f"\n  {verb} " in run.stdout


def test_unknown_verb_is_refused_by_name() -> None:
    """A typing error ends with status 2 and says what was not understood."""
    run = subprocess.run([ROOT / "messwarte", "updown"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "updown" in run.stderr


def test_launcher_needs_a_supported_python(tmp_path: Path) -> None:
    """An unsupported interpreter is refused before anything is made."""
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    run = subprocess.run(
        ["/bin/sh", ROOT / "messwarte", "--help"],
        env={"PATH": "/usr/bin:/bin", "MESSWARTE_PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "Python 3.11, 3.12 or 3.13" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("deploy", "--check", "inventories/absent.py"), "there is no inventory inventories/absent.py"),
        (("deploy", "inventories/absent.py"), "there is no inventory inventories/absent.py"),
        (("status", "inventories/absent.py"), "there is no inventory inventories/absent.py"),
        (("status", "--lab", "absent"), "lab absent is not up; run: ./messwarte up --lab absent"),
        (("migrate", "status", "--lab", "absent"), "lab absent is not up; run: ./messwarte up --lab absent"),
        (("deploy", "--check", "--remove"), "exclude each other"),
        (("restore", "--to", "nonsense"), "`nonsense` is no moment; it must be `latest`, or like `2026-"),
        (("restore", "--to", "2026-01-01 00:00"), "with its time zone"),
        (("restore", "--to", "2999-01-01 00:00+00"), "has not come yet"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    """A mistyped path or name fails, so that no job goes on for ever with nothing to do."""
    run = subprocess.run([ROOT / "messwarte", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize("arguments", [("deploy",), ("deploy", "--check")])
def test_wrong_settings_and_groups_are_said_without_asking_a_host(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """The host of the inventory does not exist; nobody has to wait to learn that."""
    settings = tmp_path / "settings.yml"
    inventory = tmp_path / "inventory.py"
    inventory.write_text(f"""all = (["192.0.2.1"], {{"settings": {str(settings)!r}}})\ncahce = ["192.0.2.1"]\n""")
    for text, words in (
        ("redis: {memory: lots}", f"{settings}: redis.memory: must be a size"),
        ("{}", "redis.mode is `deployed`, and the inventory has no host in group `cache`"),
    ):
        settings.write_text(text)
        run = subprocess.run(
            [ROOT / "messwarte", *arguments, inventory], capture_output=True, text=True, check=False, timeout=60
        )
        assert run.returncode == 2
        assert words in run.stderr
        assert "Connecting" not in run.stderr + run.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_command_with_help(verb: str) -> None:
    """Each verb's module exists, and its help says more than its name."""
    command = importlib.import_module(f"cli.{verb}").command
    assert isinstance(command, click.Command)
    assert command.help
