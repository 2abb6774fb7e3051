"""The process beside each lab host: `python -m lab.supervise LOG COMMAND...` restarts a guest that reboots."""

import sys
from pathlib import Path

from lab.guest import supervise

if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]), sys.argv[2:]))
