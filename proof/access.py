"""What it takes to pass the gates of a stack: the authority's certificate and the operator's password."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from settings import Secrets, SecretsError, certificates

OPERATOR = "operator"


@dataclass(frozen=True)
class Access:
    """The authority (PEM) and the password of `operator`."""

    authority: str
    password: str

    @classmethod
    def of(cls, secrets: Path) -> "Access":
        """Read the secrets file of a stack that has been deployed. Raises SecretsError."""
        found = Secrets(secrets, keep=False)
        if found.new:
            raise SecretsError(f"{secrets}: is missing, and nobody passes the gates without it")
        return cls(certificates.authority(found), found.get("gate_operator"))

    def client(self, url: str, auth: tuple[str, str] | None = None) -> httpx.Client:
        """Return a client of one service; it passes the gate as the operator, or logs in to the service itself."""
        trusted = ssl.create_default_context(cadata=self.authority)
        login = auth or (OPERATOR, self.password)
        return httpx.Client(base_url=url, auth=login, verify=trusted, timeout=20, trust_env=False)


def load_options(lab: Path, erp: str) -> list[str]:
    """Return the options with which `erp load` reaches a lab's ERP; they name `ca.pem` and `netrc` as curl would.

    Both files are written into the lab's folder, beside its secrets.
    """
    access, authority, netrc = Access.of(lab / "secrets.yml"), lab / "ca.pem", lab / "netrc"
    authority.write_text(access.authority)
    netrc.touch(mode=0o600)
    netrc.write_text(f"machine {urlsplit(erp).hostname} login {OPERATOR} password {access.password}\n")
    return ["--url", erp, "--cacert", str(authority), "--netrc-file", str(netrc)]
