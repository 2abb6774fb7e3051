"""The peer of `bench deploy`: Ansible playbooks for the outcome that our components describe, tuned for speed.

What was chosen, and why. Both playbooks: ansible-core from its own environment; pipelining, ControlPersist with a
connection that is open already, facts off, the interpreter named, 10 forks, default strategy (one host), no callbacks
beside the default, modules of ansible-core only. One `apt` task for all packages, without an update of the index.
Archives are only looked for (`creates`). What is no file (roles, settings, history) is asked in one `shell`, and mended
only where the answer differs. A changed file restarts its component by a handler. No readiness is waited for.

- `files`: one `copy` per file, `file` per link, `systemd_service` per unit, `user` per user, in loops. How most roles
  are written.
- `bulk`: fewer, larger questions. All files and links in one `unarchive`, all units in one `service_facts`, all users
  in one `getent`, all archives in one `find`; the modules that change run only where those differ. About the least that
  ansible-core can do.

Not used: Mitogen and `ansible.posix.synchronize`, which are not part of ansible-core (the latter needs rsync on hosts).
"""

import functools
import hashlib
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.environment import ROOT, programs
from deploy.component import Component
from lab import Machine

_ETC = "/etc/messwarte"
PLAYBOOKS = ("files", "bulk")
_CONFIGURATION = """\
[defaults]
inventory = {folder}/inventory
forks = 10
gathering = explicit
host_key_checking = True
retry_files_enabled = False
local_tmp = {folder}/tmp
[ssh_connection]
pipelining = True
ssh_args = -F none -o ControlMaster=auto -o ControlPersist=600s -o BatchMode=yes -o UserKnownHostsFile={known_hosts}
control_path_dir = {folder}/cp
"""
_RECAP = re.compile(r"ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)")
Task = dict[str, Any]


@dataclass(frozen=True)
class Recap:
    """What ansible-playbook said in the end, and what it said of each change."""

    ok: int
    changed: int
    changes: Sequence[str]


def install() -> Path:
    """Return Ansible's programs, made once from their lock file in an environment of their own."""
    return programs(ROOT / "bench/ansible.lock")


def version(programs: Path) -> str:
    """Return ansible-core's version."""
    shown = subprocess.run([programs / "ansible", "--version"], capture_output=True, text=True, check=True).stdout
    return shown.split("core ")[1].split("]")[0]


class Peer:
    """The playbooks for one host that has the components already, in a folder of their own."""

    def __init__(self, programs: Path, folder: Path, machine: Machine, parts: Mapping[str, Component]) -> None:
        """Write configuration, files and playbooks; the folder will hold secrets."""
        self._programs, self._folder, self._machine, self._parts = programs, folder, machine, parts
        folder.chmod(0o700)
        (folder / "inventory").write_text(
            f"erp ansible_host={machine.address} ansible_user=root ansible_ssh_private_key_file={machine.ssh_key} "
            "ansible_python_interpreter=/usr/bin/python3\n"
        )
        (folder / "ansible.cfg").write_text(_CONFIGURATION.format(folder=folder, known_hosts=machine.known_hosts))
        self._write_files()
        files = [
            *self._packages(),
            *self._users_one_by_one(),
            *self._archives_one_by_one(),
            *self._files_one_by_one(),
            *self._units_one_by_one(),
        ]
        bulk = [
            *self._packages(),
            *self._users_in_bulk(),
            *self._archives_in_bulk(),
            *self._files_in_bulk(),
            *self._units_in_bulk(),
        ]
        for name, tasks in zip(PLAYBOOKS, (files, bulk), strict=True):
            play = {
                "hosts": "all",
                "gather_facts": False,
                "tasks": [*tasks, *self._state()],
                "handlers": self._handlers(),
            }
            (folder / f"{name}.yml").write_text(yaml.safe_dump([play], sort_keys=False))

    def run(self, playbook: str) -> Recap:
        """Run a playbook; raises RuntimeError with what it said when it fails."""
        done = subprocess.run(
            [self._programs / "ansible-playbook", f"{playbook}.yml"],
            cwd=self._folder,
            env=os.environ | {"ANSIBLE_CONFIG": str(self._folder / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        recap = _RECAP.search(done.stdout)
        if done.returncode or recap is None:
            raise RuntimeError(f"ansible-playbook {playbook}.yml ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return Recap(int(recap[1]), int(recap[2]), list(_changes(done.stdout)))

    def _write_files(self) -> None:
        """Write each file by itself, and all of them with the links as one archive."""
        moment = int(self._machine.succeed("date +%s"))

        @functools.cache
        def numbers(user: str, group: str) -> list[int]:
            asked = f"getent passwd {user} | cut -d: -f3; getent group {group} | cut -d: -f3"
            return [int(number) for number in self._machine.succeed(asked).split()]

        with tarfile.open(self._folder / "all.tar", "w") as tar:
            for name, part in self._parts.items():
                for file in part.files:
                    content = file.content.encode() if isinstance(file.content, str) else file.content
                    path = self._folder / "files" / name / file.path
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                    member = tarfile.TarInfo(f"{_ETC}/{name}/current/{file.path}".lstrip("/"))
                    member.size, member.mode, member.mtime = len(content), file.mode, moment
                    member.uname, member.gname = file.owner.split(":")
                    member.uid, member.gid = numbers(member.uname, member.gname)
                    tar.addfile(member, io.BytesIO(content))
            for target, source in self._links().items():
                member = tarfile.TarInfo(target.lstrip("/"))
                member.type, member.linkname, member.mtime = tarfile.SYMTYPE, source, moment
                tar.addfile(member)

    def _links(self) -> dict[str, str]:
        found = {
            target: f"{_ETC}/{name}/current/{file}"
            for name, part in self._parts.items()
            for target, file in part.links.items()
        }
        archives = [archive for part in self._parts.values() for archive in part.archives]
        return found | {f"{Path(archive.target).parent}/current": archive.target for archive in archives}

    def _packages(self) -> list[Task]:
        names = sorted({name for part in self._parts.values() for name in part.packages})
        return [_task("packages", "apt", name=names, state="present", install_recommends=False)]

    def _archives_one_by_one(self) -> list[Task]:
        made = {one.target: str(one.make()) for part in self._parts.values() for one in part.archives}
        items = [{"src": path, "dest": target} for target, path in made.items()]
        task = _task("archives", "unarchive", src="{{ item.src }}", dest="{{ item.dest }}", creates="{{ item.dest }}")
        return [task | {"loop": items}]

    def _archives_in_bulk(self) -> list[Task]:
        parents = sorted({str(Path(one.target).parent) for part in self._parts.values() for one in part.archives})
        find = _task("known archives", "find", paths=parents, file_type="directory") | {"register": "found"}
        (task,) = self._archives_one_by_one()
        return [find, task | {"when": "item.dest not in (found.files | map(attribute='path'))"}]

    def _users(self) -> list[str]:
        return sorted({line.split()[1] for part in self._parts.values() for line in part.users})

    def _users_one_by_one(self) -> list[Task]:
        return [
            _task("users", "user", name="{{ item }}", system=True, create_home=False, state="present")
            | {"loop": self._users()}
        ]

    def _users_in_bulk(self) -> list[Task]:
        absent = {"when": "item not in ansible_facts.getent_passwd"}
        (task,) = self._users_one_by_one()
        return [_task("known users", "getent", database="passwd"), task | absent]

    def _files_one_by_one(self) -> list[Task]:
        tasks = []
        for name, part in self._parts.items():
            base = f"{_ETC}/{name}/current"
            items = [
                {"path": file.path, "mode": f"{file.mode:04o}", "owner": owner, "group": group}
                for file in part.files
                for owner, group in [file.owner.split(":")]
            ]
            copy = _task(
                f"files of {name}",
                "copy",
                src=f"{self._folder}/files/{name}/{{{{ item.path }}}}",
                dest=f"{base}/{{{{ item.path }}}}",
                **{key: f"{{{{ item.{key} }}}}" for key in ("owner", "group", "mode")},
            )
            tasks.append(copy | {"loop": items, "notify": f"restart {name}", "no_log": True})
        items = [{"dest": target, "src": source} for target, source in self._links().items()]
        link = _task("links", "file", src="{{ item.src }}", dest="{{ item.dest }}", state="link")
        return [*tasks, link | {"loop": items}]

    def _files_in_bulk(self) -> list[Task]:
        task = _task("all files and links", "unarchive", src=f"{self._folder}/all.tar", dest="/")
        return [task | {"notify": [f"restart {name}" for name in self._parts]}]

    def _units(self) -> list[dict[str, Any]]:
        wanted = [unit for part in self._parts.values() for unit in part.units if unit.start]
        return [{"name": unit.name} | ({"enabled": True} if unit.enable else {}) for unit in wanted]

    def _units_one_by_one(self) -> list[Task]:
        enabled = "{{ item.enabled | default(omit) }}"
        task = _task("units", "systemd_service", name="{{ item.name }}", state="started", enabled=enabled)
        return [task | {"loop": self._units()}]

    def _units_in_bulk(self) -> list[Task]:
        """Only services are among the facts: a timer is asked for by itself."""
        known = "ansible_facts.services[item.name]"
        (task,) = self._units_one_by_one()
        unlike = (
            f"item.name.endswith('.timer') or {known}.state != 'running' "
            f"or (item.enabled is defined and {known}.status != 'enabled')"
        )
        return [_task("known units", "service_facts"), task | {"when": unlike}]

    def _state(self) -> list[Task]:
        """What is no file: right is what the host answers now."""
        probes = [command for part in self._parts.values() for command in part.probes.values()]
        asked = "\n".join(probes)
        right = hashlib.sha256(self._machine.succeed(asked).rstrip("\n").encode()).hexdigest()
        mending = [
            f"cd {_ETC}/{name}/current && {command}"
            for name in ("postgresql", "database", "migrations")
            for command in self._parts[name].after
        ]
        unlike = f"(state.stdout | hash('sha256')) != '{right}'"
        return [
            _task("state of the database", "shell", cmd=asked)
            | {"register": "state", "changed_when": False, "no_log": True},
            _task("roles, settings, history", "shell", cmd="\n".join(mending)) | {"when": unlike, "no_log": True},
        ]

    def _handlers(self) -> list[Task]:
        return [
            _task(f"restart {name}", "systemd_service", name="{{ item }}", state="restarted", daemon_reload=True)
            | {"loop": [unit.name for unit in part.units if unit.start]}
            for name, part in self._parts.items()
        ]


def _changes(said: str) -> Iterator[str]:
    task = ""
    for line in said.splitlines():
        if line.startswith(("TASK [", "RUNNING HANDLER [")):
            task = line.rstrip("* ")
        elif line.startswith("changed:"):
            yield f"{task} {line}"


def _task(title: str, module: str, /, **arguments: Any) -> Task:
    return {"name": title, f"ansible.builtin.{module}": arguments}
