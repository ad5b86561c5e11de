"""What several tests of actions let happen to a model."""

from __future__ import annotations

from orrery.actions.desk import Desk
from orrery.data.journal import FOLDER, Journal


def predicted(desk: Desk, count: int) -> None:
    """Let so many requests have come in the last days."""
    now = int(desk.orrery.clock.now().timestamp() * 1e6)
    columns = {
        "_id": [f"r{place}" for place in range(count)],
        "_at": [now - 3_600_000_000] * count,
        "_latency": [0.001] * count,
        "_output": [[0.5]] * count,
        "_entity": [f"e{place}" for place in range(count)],
        "x": [0.1] * count,
    }
    with Journal(desk.settings.folder(FOLDER), "test") as journal:
        journal.append("toy", "production", columns, {"_version": 1, "_role": "champion", "_broken": []})
    assert desk.orrery.ship_journal() == count
