"""What pyinfra runs: `pyinfra INVENTORY deploy/stack.py` brings every host to what inventory and settings say."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyinfra import host, inventory, logger
from pyinfra.api.exceptions import PyinfraError

from deploy import operations
from deploy.apps import AppError
from deploy.components import ORDER
from deploy.context import components, make_plan
from settings import SecretsError, SettingsError

try:
    plan = make_plan(host, inventory)
    parts = components(plan)
except (AppError, SecretsError, SettingsError) as error:
    # What an operator can put right is said without a trace.
    raise PyinfraError(str(error)) from None

kept = ["grafana"] if plan.grafana_kept else []
there = [*parts, *kept]
going = sorted(set(plan.facts.applied) - set(there))
operations.only(
    name="only what is wanted" + (f"; {host.name} without {', '.join(going)}" if going else ""), wanted=there
)
operations.packages(name="packages", wanted=parts)

# Every host takes part in every step: pyinfra keeps order only between operations that one host has both of, and the
# database has to be there before what needs it, wherever that is.
for name in host.loop(list(ORDER)):
    operations.component(name=name, wanted=parts.get(name))

if plan.backup_missing and plan.here("database"):
    logger.warning(plan.backup_missing)
if plan.grafana_missing and plan.here("monitoring"):
    logger.warning(plan.grafana_missing)
