"""deploy/stack.py, one file of which is broken on its way: as an edited rule, or a damaged template, would break it.

`pyinfra INVENTORY tests/hosts/breaking_stack.py --data broken=COMPONENT:FILE:TEXT`: TEXT is added to the file; without
any, the file is left out.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from pyinfra import host, local

from deploy import context
from deploy.component import Component, File
from deploy.plan import Plan

_whole = context.components


def components(plan: Plan) -> dict[str, Component]:
    """Return what belongs on a host, with the one file broken."""
    parts = _whole(plan)
    name, path, text = host.data.broken.split(":", 2)

    def broken(file: File) -> list[File]:
        if file.path != path:
            return [file]
        content: Any = file.content if isinstance(file.content, str) else file.content.decode()
        return [replace(file, content=f"{content}\n{text}\n")] if text else []

    files = tuple(one for file in parts[name].files for one in broken(file))
    assert files != parts[name].files
    return parts | {name: replace(parts[name], files=files)}


context.components = components
local.include(str(ROOT / "deploy/stack.py"))
