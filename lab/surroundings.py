"""What a guest has to take over from this machine to reach the network: resolvers, apt's proxy, extra authorities."""

import ipaddress
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lab.system import run

# systemd-resolved's own list first: /etc/resolv.conf then names a resolver on the loopback interface.
RESOLV_CONFS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
AUTHORITIES = Path("usr/local/share/ca-certificates")
_APT = re.compile(
    r"Acquire::(https?::(Proxy(::[^ ]+)?|CaInfo|Verify-Peer|Verify-Host)"
    r"|Check-Valid-Until|Check-Date|Retries|ForceIPv4) \"[^\"]+\";"
)


@dataclass(frozen=True)
class Resolvers:
    """This machine's resolvers: those a guest can ask as well, or the one on this machine's loopback interface."""

    servers: tuple[str, ...] = ()
    search: str = ""
    loopback: str | None = None

    def text(self, gateway: str) -> str:
        """Return a guest's resolv.conf; this machine passes questions on where only its loopback interface answers."""
        servers = self.servers or ((gateway,) if self.loopback else ())
        return "".join(f"{line}\n" for line in (self.search, *(f"nameserver {one}" for one in servers)) if line)


def resolvers(paths: Iterable[Path] = RESOLV_CONFS) -> Resolvers:
    """Read the first resolv.conf whose servers a guest can reach over IPv4."""
    found = [parse_resolvers(path.read_text(errors="replace")) for path in paths if path.is_file()]
    usable = [one for one in found if one.servers] or [one for one in found if one.loopback]
    return usable[0] if usable else Resolvers()


def parse_resolvers(text: str) -> Resolvers:
    """Parse a resolv.conf; IPv6 servers are left out, as guests have IPv4 only."""
    rows = [line.split() for line in text.splitlines()]
    search = next((" ".join(row) for row in reversed(rows) if row[:1] == ["search"]), "")
    addresses = [one for row in rows if row[:1] == ["nameserver"] and len(row) > 1 if (one := _ipv4(row[1]))]
    servers = tuple(str(one) for one in addresses if not one.is_loopback)
    loopback = next((str(one) for one in addresses if one.is_loopback), None)
    return Resolvers(servers, search, loopback)


def apt_settings(gateway: str) -> str:
    """Return apt configuration for a guest: this machine's proxies and checks, nothing else."""
    return guest_apt_settings(run(["apt-config", "dump", "Acquire"]).stdout, os.environ, gateway)


def guest_apt_settings(dump: str, environment: Mapping[str, str], gateway: str) -> str:
    """Choose from `apt-config dump` and the proxy variables; a proxy on loopback is reached at the gateway."""
    lines = [line for line in dump.splitlines() if _APT.fullmatch(line)]
    for scheme in ("http", "https"):
        proxy = environment.get(f"{scheme}_proxy")
        if proxy and not any(line.startswith(f"Acquire::{scheme}::Proxy ") for line in lines):
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    return "".join(f"{_reachable(line, gateway)}\n" for line in lines)


def authorities(source: Path = Path("/", AUTHORITIES)) -> dict[str, bytes]:
    """Return the certificates of authorities that this machine trusts beyond Debian's, by file name."""
    return {path.name: path.read_bytes() for path in sorted(source.rglob("*.crt")) if path.is_file()}


def take_over(root: Path, gateway: str) -> None:
    """Write resolvers and apt's settings into a guest's tree."""
    target = root / "etc/resolv.conf"
    target.unlink(missing_ok=True)
    target.write_text(resolvers().text(gateway))
    settings = apt_settings(gateway)
    if settings:
        (root / "etc/apt/apt.conf.d/90lab").write_text(settings)
    for path in re.findall(r"CaInfo \"(/[^\"]+)\"", settings):
        copy = root / path.lstrip("/")
        if Path(path).is_file() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _reachable(line: str, gateway: str) -> str:
    name, _, value = line.partition(" ")
    address = value.strip('";')
    host = urlsplit(address).hostname if "Proxy" in name else None
    if host and (host == "localhost" or ((ip := _ipv4(host)) and ip.is_loopback)):
        return f"{name} {value.replace(host, gateway, 1)}"
    return line


def _ipv4(text: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None
