"""What pyinfra runs: `pyinfra INVENTORY deploy/rollback.py --data component=NAME` returns to what ran before."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyinfra import host

from deploy import operations

operations.roll_back(name=f"{host.data.component} as before", component_name=host.data.component)
