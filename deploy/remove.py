"""What pyinfra runs: `pyinfra INVENTORY deploy/remove.py` takes the stack away; packages and data stay."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy import operations

operations.only(name="nothing of ours", wanted=[])
