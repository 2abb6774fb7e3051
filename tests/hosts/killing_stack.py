"""deploy/stack.py, whose program on the host kills itself when it gets to one place.

`pyinfra INVENTORY tests/hosts/killing_stack.py --data kill=COMPONENT:MODULE.FUNCTION:NUMBER`: before that call, counted
from 1, of a function of deploy/host.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from pyinfra import host, local

from deploy import operations

_DYING = """
import os, signal
_module, _calls = sys.modules["deploy.host.{module}"], []
_whole = _module.{function}
def _dying(*arguments):
    _calls.append(arguments)
    if len(_calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return _whole(*arguments)
_module.{function} = _dying
"""
_whole_program = operations.program


def program(module: str, arguments: dict[str, Any]) -> str:
    """Return the program, of the one component with the change that kills it."""
    text = _whole_program(module, arguments)
    component, place, number = host.data.kill.split(":")
    if module != "apply" or arguments["name"] != component:
        return text
    where, function = place.split(".")
    loading, calling = text.rstrip().rsplit("\n", 1)
    return f"{loading}\n{_DYING.format(module=where, function=function, number=number)}{calling}\n"


operations.program = program
local.include(str(ROOT / "deploy/stack.py"))
