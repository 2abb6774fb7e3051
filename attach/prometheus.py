"""An existing Prometheus gets files to include: scrape jobs, rules, and what passes the gates."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from attach import AttachError
from deploy.gate.deploy import SCRAPER
from deploy.prometheus.deploy import rule_files, scrape_configs
from deploy.topology import Topology
from settings import Secrets, certificates

SCRAPE, RULES, AUTHORITY, PASSWORD = "scrape.yml", "rules", "ca.pem", "scrape_password"
_MARK = "# Written by `messwarte attach prometheus`; of what follows, the SHA-256 is "


def files(topology: Topology, secrets: Secrets) -> dict[str, str]:
    """Return the files by their paths below the folder."""
    rules = {f"{RULES}/{name}": text for name, text in rule_files(topology.settings).items()}
    found = {SCRAPE: scrape_configs(topology, PASSWORD)} | rules
    found = {path: f"{_MARK}{_digest(text)}\n{text}" for path, text in found.items()}
    if not topology.exposed:
        return found
    folder = topology.settings.network.certificates
    authority = (Path(folder) / "ca.pem").read_text() if folder else certificates.authority(secrets)
    return found | {AUTHORITY: authority, PASSWORD: secrets.get(f"gate_{SCRAPER}")}


def write(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """Write what differs, all or nothing; return the paths that changed. Raises AttachError for files of others."""
    stale = [path.relative_to(folder).as_posix() for path in folder.glob(f"{RULES}/*.yml") if _is_ours(path)]
    gone = sorted(set(stale) - set(wanted))
    changed = [path for path, text in wanted.items() if _read(folder / path) != text]
    if strange := [str(folder / path) for path in changed if not _may_replace(folder / path)]:
        raise AttachError(
            f"not written by Messwarte, or changed since: {', '.join(strange)}; move them away, or name another folder"
        )
    check(wanted)
    for path in changed:
        _replace(folder / path, wanted[path], 0o600 if path == PASSWORD else 0o644)
    for path in gone:
        (folder / path).unlink()
    return changed + gone


def check(wanted: Mapping[str, str]) -> bool:
    """Let promtool look at all of it; False where there is none. Raises AttachError with what it says."""
    promtool = shutil.which("promtool")
    if not promtool:
        return False
    with tempfile.TemporaryDirectory(prefix="messwarte-") as scratch:
        for path, text in wanted.items():
            _replace(Path(scratch, path), text, 0o600)
        # Older promtools know no scrape_config_files; the jobs are the same here and there.
        content = {"rule_files": [path for path in wanted if path.startswith(RULES)]} | yaml.safe_load(wanted[SCRAPE])
        Path(scratch, "prometheus.yml").write_text(yaml.safe_dump(content))
        run = subprocess.run(
            [promtool, "check", "config", "prometheus.yml"], cwd=scratch, capture_output=True, text=True, check=False
        )
    if run.returncode:
        raise AttachError(f"promtool refuses what would be written:\n{run.stdout}{run.stderr}")
    return True


def advice(folder: Path, wanted: Mapping[str, str]) -> str:
    """Return the lines for prometheus.yml, and what else to do."""
    rules = "".join(f"      - {folder / path}\n" for path in sorted(wanted) if path.startswith(RULES))
    lines = f"    scrape_config_files:\n      - {folder / SCRAPE}\n    rule_files:\n{rules}"
    owner = f"{folder / PASSWORD} is for root and Prometheus alone: chown it to the user of Prometheus\n"
    return (
        f"add to prometheus.yml (version 2.43 or later), whose alerting section stays as it is:\n{lines}"
        f"{owner if PASSWORD in wanted else ''}"
        "then: promtool check config prometheus.yml && systemctl reload prometheus"
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise AttachError(f"{path} cannot be read: {error}") from error


def _is_ours(path: Path) -> bool:
    head, _, rest = (_read(path) or "").partition("\n")
    return head == f"{_MARK}{_digest(rest)}"


def _may_replace(path: Path) -> bool:
    # Certificate and password bear no mark; they are ours where the jobs beside them are.
    marked = path if path.name not in {AUTHORITY, PASSWORD} else path.with_name(SCRAPE)
    return not path.exists() or (path.is_file() and _is_ours(marked))


def _replace(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as file:
        # Closed until it is complete: one of them is a password.
        file.write(text)
        os.fchmod(file.fileno(), mode)
        if path.exists():
            # Whoever was given the old one reads the new one, too.
            os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
    Path(file.name).replace(path)
