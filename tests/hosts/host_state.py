"""Runs on a deployed host: prints, as JSON, what a deploy decides there, so that two hosts can be compared.

Managed files, the database's catalog, and what each daemon really runs with. Left out: what differs between two clean
runs (keys made by packages, moments, process numbers) and what earlier generations are kept.
"""

import hashlib
import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

_OTHERS = re.compile(
    r"/etc/(machine-id|mtab|shadow-?|gshadow-?|passwd-?|group-?|ld\.so\.cache|\.updated|\.pwd\.lock|ssh/|ssl/|alternatives/"
    r"|resolv\.conf|hosts|aliases\.db|localtime|messwarte/|systemd/system/multi-user\.target\.wants/|subuid|subgid|rc\d\.d|mailname)"
)
_ENVIRONMENT = re.compile(
    r"(INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_EXEC_PID|MEMORY_PRESSURE_\w+|NOTIFY_SOCKET|MAINPID|PG_GRANDPARENT_PID|WATCHDOG_PID)="
)
_SETTINGS = (
    "SELECT name, setting, source FROM pg_settings WHERE source NOT IN ('default', 'override', 'client') ORDER BY 1"
)
_RULES = "SELECT type, database, user_name, address, auth_method, error FROM pg_hba_file_rules"
_COUNTS = "SELECT (SELECT count(*) FROM artikel), (SELECT count(*) FROM charge), (SELECT count(*) FROM auftrag)"


def shell(command: str) -> str:
    """Return what a command prints, or how it failed."""
    run = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    return run.stdout if run.returncode == 0 else f"status {run.returncode}: {run.stdout}{run.stderr}"


def one(path: Path) -> str:
    """Return mode, owner and content of a file, or where a link leads."""
    if path.is_symlink():
        return f"link {path.readlink()}"
    status = path.stat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return f"{content} {status.st_mode & 0o7777:o} {path.owner()}:{path.group()}"


def files() -> dict[str, str]:
    """Every file of /etc, the current generations, the current programs, and whatever lies about beside them."""
    found = {str(path): one(path) for path in Path("/etc").rglob("*") if not _OTHERS.match(str(path))}
    for home in (*Path("/etc/messwarte").iterdir(), *Path("/opt/messwarte").iterdir()):
        found[f"{home}/current"] = one(home / "current")
        found |= {str(path): "left behind" for path in home.iterdir() if path.name.startswith(".")}
    for home in Path("/etc/messwarte").iterdir():
        current = home / "current"
        found |= {
            f"{current}/{path.relative_to(current.resolve())}": one(path) for path in current.resolve().rglob("*")
        }
    found |= {str(path): "left behind" for path in Path("/var/lib/messwarte/uploads").glob("*")}
    return found | {"policy-rc.d": str(Path("/usr/sbin/policy-rc.d").exists())}


def notes() -> dict[str, str]:
    """What was applied, by its hash."""
    return {path.name: json.loads(path.read_text())["digest"] for path in Path("/var/lib/messwarte/applied").iterdir()}


def database() -> dict[str, str]:
    """Roles with their verifiers, schema, settings in force, access rules, and how many rows were generated."""
    psql = "runuser -u postgres -- psql -XAt -d erp -c"
    dump = "runuser -u postgres -- {} | grep -vE '^(--|$|.(un)?restrict )'"
    return {
        "roles": shell(dump.format("pg_dumpall --roles-only")),
        "schema": shell(dump.format("pg_dump --schema-only erp")),
        "history": shell(f'{psql} "SELECT version, checksum FROM messwarte.migration_history ORDER BY 1"'),
        "rows": shell(f'{psql} "{_COUNTS}"'),
        "settings": shell(f'{psql} "{_SETTINGS}"'),
        "pending": shell(f'{psql} "SELECT name FROM pg_settings WHERE pending_restart"'),
        "hba": shell(f'{psql} "{_RULES}"'),
    }


def daemons() -> dict[str, str]:
    """Units, and the command line, environment and credentials of the process that really runs."""
    listed = shell(
        "systemctl list-unit-files --plain --no-legend 'messwarte-*' 'prometheus*' 'redis-*' 'grafana-*' 'postfix*'"
    )
    units = sorted({line.split()[0] for line in listed.splitlines() if "@." not in line})
    found = {
        "failed": shell("systemctl --failed --no-legend"),
        "packages": shell("dpkg --audit; dpkg-query -W | wc -l"),
    }
    for unit in [*units, "postgresql@17-main.service"]:
        # What a timer starts may or may not be at work just now.
        by_timer = shell(f"systemctl show --value -p Type {unit}").strip() == "oneshot"
        shown = shell(f"systemctl show -p UnitFileState,NeedDaemonReload,FragmentPath,DropInPaths {unit}")
        pid = shell(f"systemctl show --value -p MainPID {unit}").strip()
        if not by_timer:
            shown += shell(f"systemctl show -p ActiveState {unit}")
        if pid not in {"", "0"} and not by_timer:
            # Redis and sshd write their titles over their environment; what has no name there is a rest of that.
            words, variables = (
                [text for text in Path(f"/proc/{pid}/{name}").read_bytes().decode().split("\0") if text]
                for name in ("cmdline", "environ")
            )
            named = sorted(text for text in variables if re.match(r"\w+=", text) and not _ENVIRONMENT.match(text))
            # How many sessions there are just now is in sshd's title.
            shown += re.sub(r"\d+ of [\d-]+ startups", "", f"{words} {named}")
        for path in sorted(Path("/run/credentials", unit).glob("*")):
            shown += f" {path.name}={hashlib.sha256(path.read_bytes()).hexdigest()}"
        found[unit] = shown
    return found


def running(host: str) -> dict[str, Any]:
    """What the kernel's firewall, and Prometheus, Alertmanager and Redis where they are, say of their configuration."""

    def ask(port: int, path: str) -> Any:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
            return json.load(answer)

    found = {"firewall": re.sub(r"counter packets \d+ bytes \d+", "", shell("nft list ruleset 2>&1"))}
    if not Path("/etc/messwarte/prometheus").exists():
        return found
    rules = [
        [rule["name"], rule["query"]]
        for group in ask(9090, "/api/v1/rules")["data"]["groups"]
        for rule in group["rules"]
    ]
    login = 'REDISCLI_AUTH="$(cat /etc/messwarte/redis/current/monitor_password)"'
    info = shell(f"{login} redis-cli -h {host} --user messwarte_monitor --no-auth-warning info")
    return found | {
        "prometheus": ask(9090, "/api/v1/status/config")["data"]["yaml"],
        "flags": ask(9090, "/api/v1/status/flags")["data"],
        "rules": rules,
        "alertmanager": ask(9093, "/api/v2/status")["config"]["original"],
        "redis": re.findall(r"(?m)^(?:config_file|maxmemory|maxmemory_policy|aof_enabled|executable):.*$", info),
    }


os.umask(0o077)
print(json.dumps({**files(), **notes(), **database(), **daemons(), **running("127.0.0.1")}))
