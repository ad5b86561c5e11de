"""Retraining when ADWIN alarms: ``python river_adwin.py WRONG.npz OUT.json LOOK DELAY FIRST``.

``wrong`` says, for the model trained at each look on each window, which rows it gets wrong. An alarm trains at the next
look, or so many rows later; every such wait and every window is tried, and what it costs is told for each.
"""

from __future__ import annotations

import json
import math
import sys

import numpy as np
from river import drift

WAITS = (0, 500, 1000)


def follow(wrong: np.ndarray, window: int, wait: int, look: int, delay: int, first: int) -> tuple[int, list[int]]:
    """Errors, and the looks at which it trained."""
    model, detector = wrong[first // look, -1], drift.ADWIN()
    due, errors, trained = math.inf, 0, []
    said = np.zeros(wrong.shape[2], dtype=bool)
    for row in range(first, wrong.shape[2]):
        if row % look == 0 and row >= due:
            model, detector, due = wrong[row // look, window], drift.ADWIN(), math.inf
            trained.append(row // look)
        said[row] = model[row]
        errors += int(said[row])
        if row - delay >= first:
            detector.update(float(said[row - delay]))
            if detector.drift_detected and math.isinf(due):
                due = row + 1 + wait
    return errors, trained


def main(path: str, out: str, look: int, delay: int, first: int) -> None:
    wrong = np.load(path)["wrong"]
    found = []
    for window in range(wrong.shape[1]):
        for wait in WAITS:
            errors, trained = follow(wrong, window, wait, look, delay, first)
            found.append({"window": window, "wait": wait, "errors": errors, "trainings": len(trained)})
    with open(out, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
