"""What pyinfra runs: `pyinfra INVENTORY deploy/stack.py` brings every host to what inventory and settings say."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyinfra import host, inventory, logger
from pyinfra.api.exceptions import PyinfraError

from deploy import operations
from deploy.apps import AppError
from deploy.components import COMPONENTS
from deploy.context import components, make_plan
from settings import SecretsError, SettingsError

try:
    plan = make_plan(host, inventory)
    parts = components(plan)
except (AppError, SecretsError, SettingsError) as error:
    # What an operator can put right is said without a trace.
    raise PyinfraError(str(error)) from None

# A Grafana that runs goes on where its package cannot be had just now.
kept = ["grafana"] if plan.grafana and plan.grafana_missing and plan.here("monitoring") else []
there = [*parts, *kept]
going = sorted(set(plan.facts.applied) - set(there))
operations.only(
    name="only what is wanted" + (f"; {host.name} without {', '.join(going)}" if going else ""), wanted=there
)

# Every host walks through the same list, so that the database is there before what needs it, wherever it is.
for name in host.loop(list(COMPONENTS)):
    if name in parts:
        operations.component(name=name, wanted=parts[name])

if plan.grafana_missing and plan.here("monitoring"):
    logger.warning(plan.grafana_missing)
