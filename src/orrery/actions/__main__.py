"""A worker process: ``python -m orrery.actions NAME``."""

from __future__ import annotations

import logging
import signal
import sys

from orrery.actions.worker import Worker
from orrery.app import Orrery


def main() -> None:
    """Work until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    worker = Worker(Orrery.open(), sys.argv[1] if len(sys.argv) > 1 else "worker-1")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()


if __name__ == "__main__":
    main()
