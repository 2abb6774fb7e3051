"""This very machine (Debian 13), without SSH; nothing listens beyond loopback. Settings: local.yml."""

import os
from pathlib import Path

_here = Path(__file__).resolve().parent
_data = {
    "address": "127.0.0.1",
    # Root needs no sudo; anybody else is asked for the password once, unless sudo is free of it.
    "_sudo": os.geteuid() != 0,
    "settings": os.environ.get("MESSWARTE_SETTINGS", str(_here / "local.yml")),
    "secrets": str(_here / "local.secrets.yml"),
}

all = (["@local"], _data)  # noqa: A001  pyinfra's name
database = ["@local"]
cache = ["@local"]
monitoring = ["@local"]
worker = ["@local"]
app = ["@local"]
