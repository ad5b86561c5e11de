"""The courier of an orrery, put together, beside the work of one of its workers."""

from __future__ import annotations

import threading
import time

from orrery.app import Orrery
from orrery.notify.courier import Courier
from orrery.notify.outbox import Delivery
from orrery.review.commands import hands
from orrery.source.follow import follow
from orrery.source.git import Source
from orrery.workers.leases import Leases

KEY = "upkeep:courier"
SECONDS = 300.0
"""How long a worker is the one that sends; longer than anything takes that is sent."""


def courier_of(orrery: Orrery) -> Courier:
    """Return what sends the news of an orrery."""
    source = Source(orrery.settings)

    def fetched(delivery: Delivery) -> str:
        """Follow a push elsewhere."""
        project = delivery.target.removeprefix("fetch/")
        remote, (token, _) = orrery.remotes.get(project), orrery.remotes.opened(project)
        return follow(source, orrery.timeline, remote, token, delivery.body["commit"], delivery.body["actor"])

    return Courier(
        orrery.settings,
        orrery.timeline,
        orrery.states,
        orrery.accounts,
        orrery.channels,
        hands=hands,
        more={"fetch/": fetched},
    )


def beside(orrery: Orrery, leases: Leases, worker: str, stopping: threading.Event) -> threading.Thread:
    """Start a thread that sends, as long as no other worker does."""
    renewed = -SECONDS

    def holds() -> bool:
        nonlocal renewed
        now = time.monotonic()
        if now - renewed < SECONDS / 4:
            return True
        # Who does not hold it only reads: a worker that waits its turn writes nothing.
        if (renewed > 0 and leases.renew(KEY, worker, SECONDS)) or leases.take([KEY], worker, SECONDS):
            renewed = now
            return True
        renewed = -SECONDS
        return False

    thread = threading.Thread(target=courier_of(orrery).run, args=(stopping, holds), name="courier", daemon=True)
    thread.start()
    return thread
