"""Running the real tools, shown as a person would type them."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent


def tool(name: str) -> str:
    """Return the path of a program of this project's own environment."""
    return str(Path(sys.executable).parent / name)


def echo(command: Sequence[str], **environment: str) -> None:
    """Print a command on standard error as one could type it in the checkout."""
    # Verbs take another lab's name with --lab, the tools from the environment.
    lab = {"MESSWARTE_LAB": name} if (name := os.environ.get("MESSWARTE_LAB", "lab")) != "lab" else {}
    settings = {"MESSWARTE_SETTINGS": file} if (file := os.environ.get("MESSWARTE_SETTINGS")) else {}
    variables = [f"{key}={shlex.quote(value)} " for key, value in (lab | settings | environment).items()]
    shown = [part.replace(f"{ROOT}/", "") for part in command]
    print(f"$ {''.join(variables)}{shlex.join(shown)}", file=sys.stderr, flush=True)


def run(command: Sequence[str], output: TextIO | None = None, **environment: str) -> int:
    """Show a command, run it in the checkout with its output visible, and return its exit status."""
    echo(command, **environment)
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdout=output, check=False).returncode
