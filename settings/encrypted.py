"""Secrets that lie encrypted: a SOPS file, or one of age. Their text is in memory only, never an argument."""

import base64
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from settings.stores import PlainFile, SecretsError, edited, replace

_INSTALL = {
    "age": "install it with: apt install age",
    "sops": "Debian has no package of it: install the .deb that https://getsops.io leads to, version 3.11 or later",
}
_SOPS = re.compile(rb"^sops:\s*$", re.MULTILINE)
_ARMOR = b"-----BEGIN AGE"


class Store(Protocol):
    """Where secrets lie: YAML text to read, and entries to set."""

    def read(self) -> str:
        """Return the text, empty where there is no file yet."""

    def write(self, changes: Mapping[str, str]) -> None:
        """Set entries, whole or not at all; all else stays."""


def store_of(path: Path, identity: str | None = None) -> Store:
    """Return the store that a file's name or content asks for; `identity` is age's, for both kinds."""
    identity = identity or os.environ.get("MESSWARTE_AGE_IDENTITY")
    if path.suffix == ".age":
        return AgeFile(path, identity)
    if path.exists() and _SOPS.search(path.read_bytes()):
        return SopsFile(path, identity)
    if ".sops." in path.name:
        raise SecretsError(
            f"{path} is to be a SOPS file, and is not encrypted or not there; make it with: "
            f"echo '{{}}' | sops encrypt --filename-override {path} > {path} (`sops` asks .sops.yaml for whom)"
        )
    return PlainFile(path)


class SopsFile:
    """A YAML file whose values SOPS encrypted; it stays encrypted for whom it was."""

    def __init__(self, path: Path, identity: str | None) -> None:
        """Take a file that is there; SOPS finds the key by itself, or in age's identity."""
        self.path = path
        self._environment = {"SOPS_AGE_KEY_FILE": str(Path(identity).expanduser())} if identity else {}

    def read(self) -> str:
        """Return the decrypted text."""
        return self._sops("decrypt", "--output-type", "yaml", str(self.path)).decode()

    def write(self, changes: Mapping[str, str]) -> None:
        """Set entries in a copy, which is encrypted too, and put it in the file's place."""
        with tempfile.NamedTemporaryFile(dir=self.path.resolve().parent, prefix=".sops.") as copy:
            copy.write(self.path.read_bytes())
            copy.flush()
            for name, value in changes.items():
                index = f"[{json.dumps(name)}]"
                self._sops("set", "--output-type", "yaml", "--value-stdin", copy.name, index, text=json.dumps(value))
            replace(self.path, Path(copy.name).read_bytes(), self.path.stat().st_mode & 0o777)

    def _sops(self, verb: str, *arguments: str, text: str = "") -> bytes:
        command = ["sops", verb, "--input-type", "yaml", *arguments]
        return _run(command, self.path, text.encode(), self._environment)


class AgeFile:
    """A YAML text that age encrypted as a whole; written for the identity's own key, and for who else is named.

    An age file does not say for whom it is: further recipients stand in a file beside it, `FILE.recipients`.
    """

    def __init__(self, path: Path, identity: str | None) -> None:
        """Take the file, which need not exist yet, and the identity that opens it."""
        if not identity:
            raise SecretsError(
                f"{path} is age's: name the file with the identity that opens it in MESSWARTE_AGE_IDENTITY, "
                "or as data `age_identity` in the inventory"
            )
        self.path = path
        self._identity = Path(identity).expanduser()
        self._recipients = path.with_name(f"{path.name}.recipients")
        if not self._identity.is_file():
            raise SecretsError(f"{path}: the age identity {self._identity} is not there; `age-keygen` makes one")

    def read(self) -> str:
        """Return the decrypted text."""
        if not self.path.exists():
            return ""
        return self._age("--decrypt", str(self.path)).decode()

    def write(self, changes: Mapping[str, str]) -> None:
        """Encrypt the text with its changes for the same recipients."""
        old, mode, options = b"", 0o600, []
        if self.path.exists():
            old, mode = self.path.read_bytes(), self.path.stat().st_mode & 0o777
        if old.startswith(_ARMOR):
            options = ["--armor"]
        if self._recipients.exists():
            options += ["--recipients-file", str(self._recipients)]
        elif _stanzas(old) > self._own():
            raise SecretsError(
                f"{self.path} is encrypted for others too, whom writing it would lock out; "
                f"write their public keys into {self._recipients}, one a line"
            )
        replace(self.path, self._age("--encrypt", *options, text=edited(self.read(), changes)), mode)

    def _own(self) -> int:
        """Return how many keys the identity file holds."""
        lines = self._identity.read_text(encoding="utf-8").splitlines()
        return sum(bool(line.strip()) and not line.startswith("#") for line in lines)

    def _age(self, verb: str, *arguments: str, text: str = "") -> bytes:
        return _run(["age", verb, "--identity", str(self._identity), *arguments], self.path, text.encode())


def _stanzas(content: bytes) -> int:
    """Return for how many recipients an age file is encrypted."""
    if content.startswith(_ARMOR):
        content = base64.b64decode(b"".join(line for line in content.splitlines() if not line.startswith(b"-----")))
    header = content.partition(b"\n---")[0]
    return sum(line.startswith(b"-> ") for line in header.split(b"\n"))


def _run(command: list[str], path: Path, text: bytes, environment: Mapping[str, str] | None = None) -> bytes:
    program = command[0]
    try:
        done = subprocess.run(
            command, input=text, env=os.environ | (environment or {}), capture_output=True, check=False
        )
    except FileNotFoundError:
        raise SecretsError(f"{path} needs the program `{program}`, which is not here; {_INSTALL[program]}") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise SecretsError(f"{path}: {program} {command[1].strip('-')}: {said.partition(' age: report')[0]}")
    return done.stdout
