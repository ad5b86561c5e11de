"""A worker that is killed at a boundary: ``killing_worker.py NAME WHERE`` with WHERE before, between or after.

``before`` an action it took, ``between`` doing it and writing it down, ``after`` writing it down.
"""

from __future__ import annotations

import os
import signal
import sys

from orrery.actions.worker import Worker
from orrery.app import Orrery
from orrery.workers.action import Action


def die() -> None:
    """End as `kill -9` ends."""
    os.kill(os.getpid(), signal.SIGKILL)


class KilledWorker(Worker):
    """Dies at its first boundary of the named kind."""

    where = ""

    def do(self, action: Action) -> None:
        """Do an action, and die where it should."""
        print(action.key, flush=True)
        if self.where == "before":
            die()
        if self.where == "between":
            self.orrery.append = lambda *args, **kwargs: die()  # type: ignore[method-assign, assignment, return-value]
        super().do(action)
        die()


def main(name: str, where: str) -> int:
    """Do one action and die, or return 3 where nothing is due."""
    orrery = Orrery.open()
    worker = KilledWorker(orrery, name)
    worker.where = where
    worker.leases.release_all(name)
    worker.catch_up()
    return 0 if worker.step() else 3


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
