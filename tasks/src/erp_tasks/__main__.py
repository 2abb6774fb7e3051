"""`python -m erp_tasks worker` or `python -m erp_tasks api`."""

import os
import sys
import tempfile


def main() -> int:
    """Run the worker or the API; return the exit status."""
    if sys.argv[1:] == ["worker"]:
        # Both are read when the libraries are imported: SIGTERM as soft shutdown, and metrics shared by processes.
        os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
        with tempfile.TemporaryDirectory(prefix="erp_tasks_metrics_") as directory:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
            return _run("worker")
    if sys.argv[1:] == ["api"]:
        return _run("api")
    sys.stderr.write("usage: python -m erp_tasks worker|api\n")
    return 2


def _run(verb: str) -> int:
    from erp_tasks.config import ConfigError  # noqa: PLC0415

    try:
        if verb == "worker":
            from erp_tasks import worker  # noqa: PLC0415

            worker.main()
        else:
            from erp_tasks import api  # noqa: PLC0415

            api.main()
    except ConfigError as error:
        sys.stderr.write(f"erp_tasks: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
