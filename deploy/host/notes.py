"""What is known on a host about each component: the note of what was applied, written last."""

import fcntl
import grp
import hashlib
import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from deploy.host.system import shell

ETC = Path("/etc/messwarte")
NOTES = Path("/var/lib/messwarte/applied")
EARLIER = Path("/var/lib/messwarte/earlier")
WANTED = Path("/var/lib/messwarte/wanted.json")
APPS = Path("/opt/messwarte")
# Archives that were unpacked before their components' turn, by their hashes; from here they can be moved.
AHEAD = APPS / ".ahead"
TREES = Path("/var/lib/messwarte/archives")
LOCK = Path("/run/lock/messwarte.lock")


def note_path(name: str) -> Path:
    """Return where a component's note lies."""
    return NOTES / f"{name}.json"


def read_note(name: str) -> dict[str, Any] | None:
    """Return a component's note, or None when its last deploy did not finish."""
    note = read_begun(name)
    return note if note.get("digest") else None


def read_begun(name: str) -> dict[str, Any]:
    """Return what is known of a component, also when its last deploy did not finish; empty when nothing is."""
    return _read(note_path(name))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def write(path: Path, note: Any) -> None:
    """Write a note, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with closed(fresh) as out:
        out.write(json.dumps(note).encode())
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)


def closed(path: Path) -> BinaryIO:
    """Open a new file that nobody else can read, not even for the moment before its mode is set."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def earlier_path(name: str, generation: Path) -> Path:
    """Return where the note of a generation lies while the generation is kept."""
    return EARLIER / name / f"{generation.name}.json"


def earlier(name: str) -> list[dict[str, Any]]:
    """Return the notes of a component's generations that are kept, the newest first."""
    found = [_read(path) for path in (EARLIER / name).glob("*.json")]
    return sorted(filter(None, found), key=lambda note: float(note["applied"]), reverse=True)


def applied() -> list[str]:
    """Return the names of all components whose deploy was begun here."""
    return sorted(path.name for path in ETC.glob("*") if path.is_dir())


def wanted() -> list[str]:
    """Return the names of the components that belong here, in the order in which they need each other."""
    try:
        return list(json.loads(WANTED.read_text()))
    except (FileNotFoundError, ValueError):
        return []


def busy() -> bool:
    """Say whether another run is changing this host just now."""
    try:
        with LOCK.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def fingerprint(path: Path) -> str:
    """Return hash, mode and owner of a file or folder, or where a link leads; empty when it is absent."""
    if path.is_symlink():
        return f"link {path.readlink()}"
    try:
        status = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    except OSError:
        return ""
    return f"{digest} {_mode(path, status)} {status.st_uid}:{status.st_gid}"


def differences(files: dict[str, str]) -> list[str]:
    """Return how files differ from their fingerprints."""
    return [said for path, wanted in files.items() if (said := difference(Path(path), wanted))]


def difference(path: Path, wanted: str) -> str:
    """Return how a file differs from its fingerprint; empty when it does not."""
    found = fingerprint(path)
    if found == wanted:
        return ""
    if not found:
        return f"{path} is missing"
    if found.startswith("link") or wanted.startswith("link"):
        return f"{path} leads elsewhere"
    changed = [
        f"{part} {now} instead of {then}" if part else "content"
        for part, now, then in zip(("", "mode", "owner"), found.split(), wanted.split(), strict=True)
        if now != then
    ]
    return f"{path} ({', '.join(changed)})"


def _mode(path: Path, status: os.stat_result) -> str:
    """Return a mode, with a plus, as `ls` shows it, where an access control list lets in more."""
    return f"{status.st_mode & 0o7777:o}{'+' if acls(path) else ''}"


def acls(path: Path) -> set[str]:
    """Return the access control lists that a file or folder has beside its mode."""
    try:
        return set(os.listxattr(path)) & {"system.posix_acl_access", "system.posix_acl_default"}
    except OSError:
        # A file system that has none.
        return set()


def rights(folder: Path) -> str:
    """Return mode and owner of a folder, as a component says them; empty when it is absent."""
    try:
        return f"{_mode(folder, folder.stat())} {folder.owner()}:{folder.group()}"
    except FileNotFoundError:
        return ""
    except KeyError:
        return "of nobody"


def probe(command: str) -> list[str]:
    """Return the lines that a probe prints, so that state which is no file can be compared; and how it failed."""
    run = shell(command)
    return [*run.stdout.splitlines(), *([f"status {run.returncode}"] if run.returncode else [])]


def account(name: str) -> str:
    """Return what a user may do: its shell, further groups, whether a password is set; and who else may do as much."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return "nothing: there is no such user"
    own = next((group for group in grp.getgrall() if group.gr_name == name), None)
    groups = sorted(group.gr_name for group in grp.getgrall() if name in group.gr_mem)
    if own is None or user.pw_gid != own.gr_gid:
        groups.insert(0, f"{user.pw_gid} first")
    shadow = dict(line.split(":")[:2] for line in Path("/etc/shadow").read_text().splitlines())
    closed = shadow.get(name, "").startswith(("!", "*"))
    said = f"shell {user.pw_shell}, groups {' '.join(groups) or '-'}, {'no password' if closed else 'a password'}"
    others = sorted({*(own.gr_mem if own else ()), *sharing(name)})
    twins = sorted(other.pw_name for other in pwd.getpwall() if other.pw_uid == user.pw_uid and other.pw_name != name)
    said += f", its group shared with {' '.join(others)}" if others else ""
    return said + (f", its number shared with {' '.join(twins)}" if twins else "")


def sharing(group: str) -> list[str]:
    """Return the users whose first group is one, but for the user of its name."""
    numbers = {found.gr_gid for found in grp.getgrall() if found.gr_name == group}
    return [user.pw_name for user in pwd.getpwall() if user.pw_gid in numbers and user.pw_name != group]


def tree_path(folder: Path) -> Path:
    """Return where it is noted how an archive was unpacked."""
    return TREES / f"{'-'.join(folder.parts[-2:])}.json"


def read_tree(folder: Path) -> dict[str, str]:
    """Return everything below a folder as it was unpacked; empty when that did not finish."""
    return _read(tree_path(folder))


def tree(folder: Path) -> dict[str, str]:
    """Return what is below a folder now, cheaply: a file that was written to has another moment of change (ctime)."""
    return {".": rights(folder), **dict(_tree(str(folder), ""))} if folder.is_dir() else {}


def _tree(folder: str, inside: str) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            status, name = entry.stat(follow_symlinks=False), f"{inside}{entry.name}"
            rights = f"{status.st_mode:o} {status.st_uid}:{status.st_gid}"
            if entry.is_dir(follow_symlinks=False):
                yield name, rights
                yield from _tree(entry.path, f"{name}/")
            else:
                yield name, f"{rights} {status.st_size} {status.st_ctime_ns}"


def tree_digest(found: dict[str, str]) -> str:
    """Return one hash of a tree."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
