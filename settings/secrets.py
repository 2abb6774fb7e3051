"""Secrets of one inventory: made at the first deploy, kept in one file that only its owner can read."""

import base64
import contextlib
import fcntl
import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import bcrypt
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from settings.encrypted import store_of
from settings.known import KNOWN
from settings.stores import SecretsError

_SCRAM_ITERATIONS = 4096
_BCRYPT_COST = 4
# What is made of other secrets, and made anew with them.
_SCRAM, _BCRYPT, CERTIFICATE = "_scram", "_bcrypt", "_certificate"
_MADE = "made"
# pyinfra looks at its hosts side by side: whoever waits for the file's lock must let the one that holds it go on.
_changing = threading.Lock()


class Secrets:
    """The secrets file of one inventory; `get` makes what is missing, `require` does not."""

    def __init__(self, path: Path, *, keep: bool = True, identity: str | None = None) -> None:
        """Open a secrets file, which need not exist yet. Raises SecretsError when it cannot be used.

        Without `keep`, what is made is not written: for a look at what a deploy would change. `identity` is the file
        that opens what age encrypted.
        """
        self.path = path
        # Whether every secret will be made anew.
        self.new = not path.exists()
        self._store = store_of(path, identity)
        self._keeps = keep
        self._values = self._read()

    def get(self, name: str) -> str:
        """Return a secret; one that is missing is made (192 bits) and kept."""
        return self.keep(name, _random)

    def scram(self, name: str) -> str:
        """Return the stored SCRAM-SHA-256 verifier of a secret, so that its salt stays the same.

        A verifier that the secret no longer fits is replaced: that is how an operator changes a password.
        """
        password = self.get(name)
        if not password.isascii():
            raise SecretsError(f"{self.path}: the secret `{name}` must hold ASCII characters only")
        return self.keep(
            f"{name}{_SCRAM}", lambda: scram_verifier(password), lambda verifier: _fits(verifier, password)
        )

    def bcrypt(self, name: str) -> str:
        """Return the stored bcrypt hash of a secret, as web servers read it; made anew when the secret has changed."""
        password = self.get(name).encode()
        # The least cost: what we make has 192 bits, which nobody guesses, and a gate checks it at every request.
        return self.keep(
            f"{name}{_BCRYPT}",
            lambda: bcrypt.hashpw(password, bcrypt.gensalt(_BCRYPT_COST)).decode(),
            lambda found: _is_bcrypt_of(found, password),
        )

    def ssh_key(self, name: str) -> tuple[str, str]:
        """Return an Ed25519 key pair: the private key in OpenSSH's form, and the public one as a line.

        Raises SecretsError when the secret is no such key.
        """
        # A rotation leaves what is no key; what an operator gave stays, and is complained of.
        given = name in self._values and self.made()[name] is None
        private = self.keep(name, _ssh_key, lambda found: bool(found) and (given or _ssh_public_key(found) is not None))
        public = _ssh_public_key(private)
        if public is None:
            raise SecretsError(f"{self.path}: the secret `{name}` is no private SSH key without passphrase")
        return private, public

    def require(self, *names: str) -> dict[str, str]:
        """Return secrets that only the operator can give. Raises SecretsError that names all that are missing."""
        missing = [
            f"{self.path}: the secret `{name}` is missing ({KNOWN[name].purpose}); add a line `{name}: ...`, "
            f"or run: ./messwarte secrets set {name} --inventory INVENTORY"
            for name in names
            if not self._values.get(name)
        ]
        if missing:
            raise SecretsError("\n".join(missing))
        return {name: self._values[name] for name in names}

    def keep(self, name: str, make: Callable[[], str], fits: Callable[[str], bool] = bool) -> str:
        """Return what is stored under a name, made anew when it no longer fits; what is missing is asked as ``."""
        if not fits(self._values.get(name, "")):
            with self._latest():
                # Another run may have made it since this one read the file; theirs stays.
                if not fits(self._values.get(name, "")):
                    self._set({name: make()})
        return self._values[name]

    def made(self) -> dict[str, datetime | None]:
        """Return every secret's name and when it was made here; None where the operator gave it."""
        marks = self._marks()
        return {
            name: datetime.fromisoformat(marks[name].split()[0])
            if marks.get(name, "").endswith(f" {_short(value)}")
            else None
            for name, value in self._values.items()
            if name != _MADE and not name.endswith((_SCRAM, _BCRYPT, CERTIFICATE))
        }

    def renew(self, names: Iterable[str]) -> None:
        """Make secrets anew, all or none; the next deploy brings them to those who use them."""
        with self._latest():
            self._set({name: _random() for name in names})

    def give(self, name: str, value: str) -> None:
        """Store what the operator gives."""
        with self._latest():
            self._store.write({name: value})

    def _read(self) -> dict[str, str]:
        try:
            content = yaml.safe_load(self._store.read()) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            # What YAML says quotes the line, and with it a secret.
            mark = getattr(error, "problem_mark", None)
            line = f" line {mark.line + 1}:" if mark else ""
            raise SecretsError(f"{self.path}:{line} not valid YAML; it must hold lines `name: value`") from None
        if not isinstance(content, dict) or not all(isinstance(value, str) and value for value in content.values()):
            raise SecretsError(f"{self.path}: must hold lines `name: value`, each value a text that is not empty")
        return content

    @contextlib.contextmanager
    def _latest(self) -> Iterator[None]:
        """Hold the file against other runs, with what they wrote."""
        if not self._keeps:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _changing, self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._values = self._read()
            yield

    def _set(self, made: dict[str, str]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        marks = self._marks() | {name: f"{now} {_short(value)}" for name, value in made.items()}
        changes = made | {_MADE: "".join(f"{name} {mark}\n" for name, mark in sorted(marks.items()))}
        if self._keeps:
            self._store.write(changes)
        self._values |= changes

    def _marks(self) -> dict[str, str]:
        """Return when which secret was made, and of what value, so that one given later is known as such."""
        lines = self._values.get(_MADE, "").splitlines()
        return {name: mark for name, _, mark in (line.partition(" ") for line in lines)}


def _ssh_key() -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    return Ed25519PrivateKey.generate().private_bytes(*form).decode()


def _ssh_public_key(private: str) -> str | None:
    """Return the public key as a line; None where the text is no private key without passphrase."""
    try:
        key = serialization.load_ssh_private_key(private.encode(), password=None)
    except ValueError:
        return None
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _random() -> str:
    return secrets.token_urlsafe(24)


def _short(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:12]


def _fits(verifier: str, password: str) -> bool:
    """Say whether a verifier of ours was made of this password."""
    try:
        salt = base64.b64decode(verifier.split("$")[1].split(":")[1], validate=True)
    except (IndexError, ValueError):
        return False
    return hmac.compare_digest(scram_verifier(password, salt), verifier)


def _is_bcrypt_of(found: str, password: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, found.encode())
    except ValueError:
        return False


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """Return PostgreSQL's SCRAM-SHA-256 verifier of an ASCII password (RFC 5802 section 3, RFC 7677)."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encode = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{encode[0]}${encode[1]}:{encode[2]}"
