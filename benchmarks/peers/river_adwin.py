"""Retraining when ADWIN alarms: ``python river_adwin.py WORLD.npz OUT.json``.

``lost`` says, for the model trained at each look on each window, the loss of each row; ``edges`` where looks begin,
``known`` how many rows have labels by then, ``first`` who begins. An alarm trains at once, or some looks later; every
such wait and every window is tried, and what it costs is told for each.
"""

from __future__ import annotations

import json
import math
import sys

import numpy as np
from river import drift

WAITS = (0, 2, 4)
"""Looks."""


def follow(world: dict[str, np.ndarray], window: int, wait: int) -> tuple[float, int]:
    """Loss, and the number of trainings."""
    lost, edges, known, first = (world[name] for name in ("lost", "edges", "known", "first"))
    model, detector, born = lost[first, -1], drift.ADWIN(), int(first)
    due, total, trained = math.inf, 0.0, 0
    said = np.zeros(lost.shape[2])
    for at in range(int(first), len(edges) - 1):
        for loss in said[max(known[at - 1], edges[born]) : known[at]].tolist():  # answers of this model
            detector.update(loss)
            if detector.drift_detected and math.isinf(due):
                due = at + wait
        if at >= due:
            model, detector, born, due = lost[at, window], drift.ADWIN(), at, math.inf
            trained += 1
        now = slice(edges[at], edges[at + 1])
        said[now] = model[now]
        total += float(said[now].sum())
    return total, trained


def main(path: str, out: str) -> None:
    world = dict(np.load(path))
    found = []
    for window in range(world["lost"].shape[1]):
        for wait in WAITS:
            lost, trained = follow(world, window, wait)
            found.append({"window": window, "wait": wait, "lost": lost, "trainings": trained})
    with open(out, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
