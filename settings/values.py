"""Checks of single values; each raises ValueError with an example of what would be right."""

import ipaddress
import re
from typing import Any, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel

# An address of a web page that may stand in a link and in a template.
URL = re.compile(r"https?://[A-Za-z0-9.\-:\[\]/_~%]+")
_DURATION = re.compile(r"[1-9]\d*(ms|s|m|h|d|w|y)")
_SIZE = re.compile(r"([1-9]\d*)(MB|GB|TB)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_BYTES = {"MB": 2**20, "GB": 2**30, "TB": 2**40}


class UniqueKeys(yaml.SafeLoader):
    """YAML in which no key may come twice: the first would be lost silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping. Raises a YAML error, with the line, when a key comes twice."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"`{key.value}` comes twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def off(value: Any) -> Any:
    """Turn the false that YAML makes of a bare `off` back into it."""
    return "off" if value is False else value


def duration(value: str) -> str:
    """Accept `250ms`, `15s`, `5m`, `90d`."""
    if not _DURATION.fullmatch(value):
        raise ValueError("must be a duration such as `15s`, `5m` or `90d`")
    return value


def seconds(value: str) -> float:
    """Return a checked duration in seconds."""
    match = re.fullmatch(r"(\d+)(\D+)", duration(value))
    return int(match[1]) * _SECONDS[match[2]] if match else 0


def retention(value: str) -> str:
    """Accept two hours or more: Prometheus deletes samples by blocks of two hours, and with less every one of them."""
    if seconds(value) < 7200:
        raise ValueError("must be at least `2h`")
    return value


def size(value: str) -> str:
    """Accept `512MB`, `8GB`, `1TB` (powers of 1024, as PostgreSQL reads them)."""
    if not _SIZE.fullmatch(value):
        raise ValueError("must be a size such as `512MB` or `8GB`")
    return value


def size_bytes(value: str) -> int:
    """Return a checked size in bytes."""
    match = _SIZE.fullmatch(size(value))
    return int(match[1]) * _BYTES[match[2]] if match else 0


def url(value: str) -> str:
    """Accept an http or https address; a trailing slash is dropped."""
    if not URL.fullmatch(value) or not urlsplit(value).hostname:
        raise ValueError("must be an address such as `https://grafana.example.com`")
    return value.rstrip("/")


def host_port(value: str) -> str:
    """Accept `mail.example.com:587`."""
    match = re.fullmatch(r"(?:[A-Za-z0-9_.\-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", value)
    if not match or not 0 < int(match[1]) < 65536:
        raise ValueError("must be `host:port`, for example `mail.example.com:587`")
    return value


def network(value: str) -> str:
    """Accept an IPv4 network such as `10.20.0.0/16`, or one address."""
    try:
        return str(ipaddress.IPv4Network(value))
    except ValueError:
        raise ValueError("must be an IPv4 network such as `10.20.0.0/16`") from None


def mail_address(value: str) -> str:
    """Accept `operator@example.com`; no display names, no line breaks."""
    if not re.fullmatch(r"[^@\s<>,;\"]+@[A-Za-z0-9.\-]+", value):
        raise ValueError("must be a mail address such as `operator@example.com`")
    return value


def folder(value: str) -> str:
    """Accept an absolute path of plain characters; a trailing slash is dropped."""
    if not re.fullmatch(r"(/[A-Za-z0-9._@-]+)*/?", value) or not value or "/../" in f"{value}/":
        raise ValueError("must be an absolute path such as `/mnt/backup`, without blanks")
    return value.rstrip("/") or "/"


def calendar(value: str) -> str:
    """Accept what can be a systemd calendar event (systemd.time(7)); `systemd-analyze calendar` has the last word."""
    if not re.fullmatch(r"[A-Za-z0-9*,./:~_ +-]*\d[A-Za-z0-9*,./:~_ +-]*|minutely|hourly|daily|weekly|monthly", value):
        raise ValueError("must be a calendar event of systemd such as `Sun 01:30` or `*-*-* 02:00`")
    return value


def host_key(value: str) -> str:
    """Accept a public key of an SSH server, `ssh-ed25519 AAAA...`; a comment behind it is dropped."""
    match = re.fullmatch(r"((?:ssh|ecdsa|sk)-[a-z0-9@.-]+ AAAA[A-Za-z0-9+/]+={0,2})(?: .*)?", value.strip())
    if not match:
        raise ValueError(
            "must be a public key such as `ssh-ed25519 AAAA...` (what `ssh-keyscan` shows behind the host)"
        )
    return match[1]


def model_of(model: type[BaseModel], field: str) -> type[BaseModel] | None:
    """Return the settings model behind a field, or None when the field is a plain value."""
    info = model.model_fields.get(field)
    candidates = (info.annotation, *get_args(info.annotation)) if info else ()
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
