"""TLS and passwords from a file in the format of Prometheus's exporters; read again whenever it changes."""

import base64
import hashlib
import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import bcrypt
from pydantic import Field, field_validator

from pgstat_exporter import log
from pgstat_exporter.strict import Problem, Strict, read

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
# Those of Prometheus's two further types, which ask for a certificate and do not verify it, OpenSSL does not know.
_CLIENTS = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
# Checked in place of an unknown user's hash, so that names cannot be told apart by the time of the answer.
_NOBODY = bcrypt.hashpw(b"", bcrypt.gensalt(10))
_REMEMBERED = 100


class Tls(Strict):
    """`tls_server_config`; paths are relative to the file."""

    cert_file: str
    key_file: str
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = "NoClientCert"
    client_ca_file: str | None = None
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"


class HttpServer(Strict):
    """`http_server_config`. HTTP/2 is offered by none of Python's servers, and used by no scraper without need."""

    http2: bool = True
    headers: dict[str, str] = Field(default_factory=dict)


class WebConfig(Strict):
    """The file's content."""

    tls_server_config: Tls | None = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: dict[str, str] = Field(default_factory=dict)

    @field_validator("basic_auth_users")
    @classmethod
    def _hashed(cls, users: dict[str, str]) -> dict[str, str]:
        for name, verifier in users.items():
            try:
                bcrypt.checkpw(b"", verifier.encode())
            except ValueError:
                raise ValueError(f"{name}'s is no bcrypt hash, such as `htpasswd -nBC 10 {name}` prints") from None
        return users


@dataclass(frozen=True)
class _State:
    config: WebConfig = field(default_factory=WebConfig)
    context: ssl.SSLContext | None = None
    files: tuple[Path, ...] = ()
    known: set[bytes] = field(default_factory=set)


class Doorkeeper:
    """Lets in by the web configuration; without one everybody, without TLS."""

    def __init__(self, path: str | None) -> None:
        """Read it. Raises Problem when it is wrong; later it is only logged."""
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._checking = threading.Lock()
        self._state = _load(self._path) if self._path else _State()
        self._stamps = _stamps(self._state.files)

    def tls(self) -> ssl.SSLContext | None:
        """Return what a new connection is encrypted with."""
        return self._now().context

    def headers(self) -> dict[str, str]:
        """Return what is added to every answer."""
        return self._now().config.http_server_config.headers

    def lets_in(self, authorization: str | None) -> bool:
        """Return whether a request with this header is answered."""
        state = self._now()
        if not state.config.basic_auth_users:
            return True
        user, password = _credentials(authorization)
        # A scraper comes every few seconds, and bcrypt is slow on purpose.
        mark = hashlib.sha256(f"{user}\0{password}".encode()).digest()
        if mark in state.known:
            return True
        verifier = state.config.basic_auth_users.get(user)
        # One at a time, as Prometheus's exporters do: whoever guesses passwords gets one processor, not all of them.
        with self._checking:
            right = bcrypt.checkpw(password.encode()[:72], verifier.encode() if verifier else _NOBODY)
        if right and verifier is not None:
            if len(state.known) < _REMEMBERED:
                state.known.add(mark)
            return True
        return False

    def _now(self) -> _State:
        """Return the configuration, read anew when a file of it has changed; a wrong one is logged and not taken."""
        if self._path is None:
            return self._state
        with self._lock:
            stamps = _stamps(self._state.files)
            if stamps != self._stamps:
                self._stamps = stamps
                try:
                    self._state = _load(self._path)
                    self._stamps = _stamps(self._state.files)
                    log.write("info", "took up the new web configuration")
                except Problem as problem:
                    log.write("error", f"the web configuration before stays in force: {problem}")
            return self._state


def _load(path: Path) -> _State:
    try:
        config = read(WebConfig, path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"web_config: {path}: cannot be read: {getattr(error, 'strerror', error)}") from None
    tls = config.tls_server_config
    if tls is None:
        return _State(config, files=(path,))
    names = [name for name in (tls.cert_file, tls.key_file, tls.client_ca_file) if name]
    return _State(config, _context(path, tls), (path, *(path.parent / name for name in names)))


def _context(path: Path, tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
    place = f"{path}: tls_server_config"
    if (tls.client_auth_type == "NoClientCert") != (tls.client_ca_file is None):
        raise Problem(f"{place}: client_ca_file and a client_auth_type that verifies belong together")
    try:
        context.load_cert_chain(path.parent / tls.cert_file, path.parent / tls.key_file)
        if tls.client_ca_file:
            context.load_verify_locations(path.parent / tls.client_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Problem(f"{place}: {tls.cert_file}, {tls.key_file}: cannot be used: {error}") from None
    context.verify_mode = _CLIENTS[tls.client_auth_type]
    return context


def _credentials(authorization: str | None) -> tuple[str, str]:
    scheme, _, text = (authorization or "").partition(" ")
    try:
        user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return (user, password) if scheme.lower() == "basic" else ("", "")


def _stamps(files: Iterable[Path]) -> list[tuple[int, int, int] | None]:
    return [_stamp(path) for path in files]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
