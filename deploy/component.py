"""What a component is: everything that has to be on a host for one service, as plain data."""

import base64
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deploy.topology import LOOPBACK

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # noqa: S701  configuration files, not HTML
    auto_reload=False,
)


@dataclass(frozen=True)
class File:
    """A file of a component's generation; `path` is relative to it. Secrets belong to root, mode 0600."""

    path: str
    content: str | bytes
    mode: int = 0o644
    owner: str = "root:root"


@dataclass(frozen=True)
class Unit:
    """A systemd unit; `reload_for` names the files whose change a reload is enough for."""

    name: str
    reload_for: tuple[str, ...] = ()
    start: bool = True
    enable: bool = True


@dataclass(frozen=True)
class Archive:
    """A folder that is brought as a tar archive; `make` returns its path on the control machine."""

    target: str
    make: Callable[[], Path]

    @property
    def upload(self) -> str:
        """Where the archive lies on the host until it is unpacked."""
        return f"/var/lib/messwarte/uploads/{self.target.strip('/').replace('/', '-')}"

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the archive."""
        return _sha256(self.make())

    @property
    def spec(self) -> dict[str, str]:
        """What the host's program has to know of it."""
        return {"target": self.target, "upload": self.upload, "sha256": self.sha256}


@dataclass(frozen=True)
class Door:
    """A TCP port of a service that other hosts may come to: those of some groups, or people.

    A service that speaks HTTP or plain TCP listens on loopback, and the host's gate lets in; `own` is one that listens
    on the host's address and speaks TLS itself. With `login`, the gate asks for a password.
    """

    port: int
    to: tuple[str, ...] = ("monitoring",)
    people: bool = False
    login: bool = True
    protocol: Literal["http", "tcp", "own"] = "http"


@dataclass(frozen=True)
class Component:
    """One service on one host.

    Commands run as root in /bin/sh: `before` anything is staged, `validate` in the staged generation,
    `swapped` when it has taken the old one's place, `after` the units were started or reloaded, `ready` until
    they succeed. `probes` print state that is no file; when that changes, the component is applied again. `ports` are
    those that its units listen on (TCP), at the addresses `listens`. `packages` are Debian's; `repository_packages` are
    of a repository that `before` adds. Units of its packages that are `idle` are kept from running, unless they were
    there before. `folders` are kept with the mode and owner that is said of them, as `750 redis:redis`.
    """

    name: str
    packages: tuple[str, ...] = ()
    repository_packages: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    units: tuple[Unit, ...] = ()
    archives: tuple[Archive, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    validate: tuple[str, ...] = ()
    swapped: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    probes: Mapping[str, str] = field(default_factory=dict)
    timeout: int = 60
    ports: tuple[int, ...] = ()
    listens: tuple[str, ...] = (LOOPBACK,)
    doors: tuple[Door, ...] = ()
    url: str | None = None
    detail: str = ""

    @property
    def digest(self) -> str:
        """Hash of everything that is wanted; what the host's note is compared with."""
        return hashlib.sha256(json.dumps(self._wanted(), sort_keys=True).encode()).hexdigest()

    def spec(self) -> dict[str, Any]:
        """Return what the host's program needs, secrets included; it travels on standard input only."""
        return self._wanted() | {
            "digest": self.digest,
            "archives": [archive.spec for archive in self.archives],
        }

    def _wanted(self) -> dict[str, Any]:
        return {
            **{
                key: getattr(self, key)
                for key in ("name", "packages", "idle", "users", "before", "validate", "swapped", "after")
            },
            **{key: getattr(self, key) for key in ("ready", "timeout", "url", "detail", "repository_packages")},
            "links": dict(self.links),
            "folders": dict(self.folders),
            "probes": dict(self.probes),
            "units": [asdict(unit) for unit in self.units],
            "archives": [archive.target for archive in self.archives],
            "files": [asdict(file) | {"content": _base64(file.content)} for file in self.files],
        }


def render(template: str, **values: Any) -> str:
    """Render a template of a component's folder (`prometheus/templates/prometheus.yml.j2`)."""
    return _TEMPLATES.get_template(template).render(values)


def curl(url: str) -> str:
    """Return a readiness check: an HTTP answer of success within two seconds."""
    return f"curl --fail --silent --show-error --max-time 2 --output /dev/null {url}"


def _base64(content: str | bytes) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
