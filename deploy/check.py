"""What `messwarte deploy --check` runs with `--dry`: a step without effect, whose name is each host's differences."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyinfra import host, inventory

from deploy import differences, operations
from deploy.context import belonging

_, parts, there = belonging(host, inventory)
report = operations.report()
found = differences.of_host(parts, there, report)
operations.nothing(name=json.dumps({"host": host.name, "busy": report["busy"], "differences": found}))
