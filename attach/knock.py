"""Runs on the host of the exporter: asks a PostgreSQL whether a role may come from there. Standard library only.

Without a password: the server answers the name alone either by asking for one or by its reason not to.
"""

import contextlib
import socket
import ssl
import struct
from typing import IO

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_PROTOCOL = 196608
_SASL = 10


def main(host: str, port: int, database: str, role: str, must_encrypt: bool) -> None:
    """Print `ok`, or why the role cannot come; where TLS is not a must, a refusal over TLS is not the last word."""
    try:
        said = _ask(host, port, database, role, encrypt=True, must=must_encrypt)
        if said != "ok" and not must_encrypt:
            said = _ask(host, port, database, role, encrypt=False, must=False)
    except OSError as error:
        said = f"{host}:{port} cannot be reached: {error}"
    print(said)  # noqa: T201


def _ask(host: str, port: int, database: str, role: str, *, encrypt: bool, must: bool) -> str:
    with contextlib.closing(socket.create_connection((host, port), timeout=10)) as plain:
        wire = plain
        if encrypt:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) == b"S":
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                wire = context.wrap_socket(plain)
            elif must:
                return "the server offers no TLS"
        body = struct.pack("!i", _PROTOCOL) + b"".join(
            part.encode() + b"\0" for part in ("user", role, "database", database, "")
        )
        wire.sendall(struct.pack("!i", len(body) + 4) + body)
        with wire.makefile("rb") as answers:
            return _understood(answers.read(1), answers)


def _understood(kind: bytes, answers: IO[bytes]) -> str:
    head = answers.read(4)
    if not kind or len(head) < 4:
        return "the server closed the connection without a word"
    body = answers.read(struct.unpack("!i", head)[0] - 4)
    if kind == b"E":
        fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
        return fields.get(b"M", "the server refuses")
    method = struct.unpack("!i", body[:4])[0] if kind == b"R" else None
    return "ok" if method in {0, _SASL} else f"the server asks for no SCRAM password (method {method}); see pg_hba.conf"
