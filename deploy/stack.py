"""What pyinfra runs: `pyinfra INVENTORY deploy/stack.py` brings every host to what inventory and settings say."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyinfra import host, inventory, logger

from deploy import operations
from deploy.components import ORDER
from deploy.context import belonging
from deploy.differences import PACKAGES, STRAYS

plan, parts, there = belonging(host, inventory)
operations.only(name=STRAYS, wanted=there)
operations.packages(name=PACKAGES, wanted=parts)

# Every host takes part in every step: pyinfra keeps order only between operations that one host has both of, and the
# database has to be there before what needs it, wherever that is.
for name in host.loop(list(ORDER)):
    operations.component(name=name, wanted=parts.get(name))

if plan.backup_missing and plan.here("database"):
    logger.warning(plan.backup_missing)
if plan.grafana_missing and plan.here("monitoring"):
    logger.warning(plan.grafana_missing)
