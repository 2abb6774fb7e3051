"""Secrets of one inventory: made at the first deploy, kept in one file that only its owner can read."""

import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SCRAM_ITERATIONS = 4096


class SecretsError(Exception):
    """A secrets file that cannot be used, or a secret that only the operator can give."""


class Secrets:
    """The secrets file of one inventory; `get` makes what is missing, `require` does not."""

    def __init__(self, path: Path, *, keep: bool = True) -> None:
        """Open a secrets file, which need not exist yet. Raises SecretsError when others can read it.

        Without `keep`, what is made is not written: for a look at what a deploy would change.
        """
        self.path = path
        self._keeps = keep
        self._values = self._read()

    def get(self, name: str) -> str:
        """Return a secret; one that is missing is made (192 bits) and kept."""
        if name not in self._values:
            self._keep(name, secrets.token_urlsafe(24))
        return self._values[name]

    def scram(self, name: str) -> str:
        """Return the stored SCRAM-SHA-256 verifier of a secret, so that its salt stays the same.

        A verifier that the secret no longer fits is replaced: that is how an operator changes a password.
        """
        verifier, password = f"{name}_scram", self.get(name)
        if not password.isascii():
            raise SecretsError(f"{self.path}: the secret `{name}` must hold ASCII characters only")
        if not _fits(self._values.get(verifier, ""), password):
            self._keep(verifier, scram_verifier(password), replace=self._values.get(verifier))
        return self._values[verifier]

    def ssh_key(self, name: str) -> tuple[str, str]:
        """Return an Ed25519 key pair: the private key in OpenSSH's form, and the public one as a line.

        Raises SecretsError when the secret is no such key.
        """
        if name not in self._values:
            form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
            self._keep(name, Ed25519PrivateKey.generate().private_bytes(*form).decode())
        try:
            key = serialization.load_ssh_private_key(self._values[name].encode(), password=None)
        except ValueError:
            raise SecretsError(f"{self.path}: the secret `{name}` is no private SSH key without passphrase") from None
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return self._values[name], public.decode()

    def require(self, name: str, what: str) -> str:
        """Return a secret that only the operator can give. Raises SecretsError when it is missing."""
        if not self._values.get(name):
            raise SecretsError(f"{self.path}: the secret `{name}` is missing ({what}); add a line `{name}: ...`")
        return self._values[name]

    def _read(self) -> dict[str, str]:
        if not self.path.exists():
            return {}
        if self.path.stat().st_mode & 0o077:
            raise SecretsError(f"{self.path} can be read by others; run: chmod 600 {self.path}")
        try:
            content = yaml.safe_load(self.path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            # What YAML says quotes the line, and with it a secret.
            mark = getattr(error, "problem_mark", None)
            line = f" line {mark.line + 1}:" if mark else ""
            raise SecretsError(f"{self.path}:{line} not valid YAML; it must hold lines `name: value`") from None
        if not isinstance(content, dict) or not all(isinstance(value, str) and value for value in content.values()):
            raise SecretsError(f"{self.path}: must hold lines `name: value`, each value a text that is not empty")
        return content

    def _keep(self, name: str, value: str, replace: str | None = None) -> None:
        """Add a secret, or replace this very value of it."""
        if not self._keeps:
            self._values[name] = value
            return
        with self._locked():
            # Another run may have made secrets since this one read the file; theirs stay.
            found = self._read()
            self._values = {name: value} | found
            if replace is not None and found.get(name) == replace:
                self._values[name] = value
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
                yaml.safe_dump(self._values, file)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self.path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _fits(verifier: str, password: str) -> bool:
    """Say whether a verifier of ours was made of this password."""
    try:
        salt = base64.b64decode(verifier.split("$")[1].split(":")[1], validate=True)
    except (IndexError, ValueError):
        return False
    return hmac.compare_digest(scram_verifier(password, salt), verifier)


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """Return PostgreSQL's SCRAM-SHA-256 verifier of an ASCII password (RFC 5802 section 3, RFC 7677)."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encode = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{encode[0]}${encode[1]}:{encode[2]}"
