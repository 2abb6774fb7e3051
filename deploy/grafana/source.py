"""Where Grafana comes from: a package given by path, or an APT repository."""

import glob
import tarfile
from dataclasses import dataclass
from pathlib import Path

from settings import SettingsError
from settings.model import GrafanaSource

_KEYRING = "/etc/apt/keyrings/grafana.asc"
_LIST = "/etc/apt/sources.list.d/grafana.sources"


@dataclass(frozen=True)
class Package:
    """A package file on the control machine."""

    path: Path

    @property
    def is_deb(self) -> bool:
        """Say whether it is a Debian package (else Grafana's official tar archive)."""
        return self.path.suffix == ".deb"

    @property
    def key(self) -> str:
        """A name for this very file: what it is called, and how large and how old it is."""
        status = self.path.stat()
        stem = self.path.name.removesuffix(".deb").removesuffix(".tar.gz")
        return f"{stem}-{status.st_size:x}-{int(status.st_mtime):x}"

    @property
    def top(self) -> str:
        """The folder that the tar archive holds, for example `grafana-12.4.0`."""
        with tarfile.open(self.path) as tar:
            first = tar.next()
        name = first.name.removeprefix("./").split("/")[0] if first else ""
        if not name.startswith("grafana"):
            raise SettingsError(f"{self.path} is not Grafana's official archive (it begins with `{name}`)")
        return name


def package(source: GrafanaSource) -> Package | None:
    """Return the package file that the settings name; a pattern that fits nothing is none."""
    if source.package is None:
        return None
    found = sorted(glob.glob(source.package))  # noqa: PTH207  an absolute pattern
    if not found and not glob.has_magic(source.package):
        raise SettingsError(f"grafana.source.package: there is no file {source.package}")
    if not found:
        return None
    path = Path(found[-1])
    if not path.name.endswith((".deb", ".tar.gz")):
        raise SettingsError(f"grafana.source.package: {path} must be an official `.deb` or `.tar.gz`")
    return Package(path)


def add_repository(url: str) -> tuple[str, ...]:
    """Return the commands that make a host trust and pin Grafana's APT repository (version 12)."""
    sources = f"Types: deb\\nURIs: {url}\\nSuites: stable\\nComponents: main\\nSigned-By: {_KEYRING}\\n"
    pin = "Package: grafana\\nPin: version 12.*\\nPin-Priority: 1001\\n"
    return (
        f"install -d /etc/apt/keyrings && curl -fsS --max-time 20 -o {_KEYRING} {url}/gpg.key",
        f"printf '{sources}' > {_LIST} && printf '{pin}' > /etc/apt/preferences.d/grafana",
        f"apt-get update -q -o Dir::Etc::SourceList={_LIST} -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0",
    )
