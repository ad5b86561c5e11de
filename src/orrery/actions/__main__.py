"""A worker process: ``python -m orrery.actions NAME``."""

from __future__ import annotations

import logging
import os
import signal
import sys

from orrery.actions.worker import Worker
from orrery.app import Orrery
from orrery.settings import Settings


def main() -> None:
    """Work until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    orrery = Orrery.open()
    _share_the_cores(orrery.settings)
    worker = Worker(orrery, sys.argv[1] if len(sys.argv) > 1 else "worker-1")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()


def _share_the_cores(settings: Settings) -> None:
    """Give this worker's frames their share of the cores: threads that wait for each other cost as much as work.

    Only here: the project's code, which runs in processes of its own, decides for itself.
    """
    if "POLARS_MAX_THREADS" in os.environ:
        return
    os.environ["POLARS_MAX_THREADS"] = str(max(1, (os.cpu_count() or 1) // settings.workers))
    import polars

    polars.thread_pool_size()  # reads the variable once and for all
    del os.environ["POLARS_MAX_THREADS"]


if __name__ == "__main__":
    main()
