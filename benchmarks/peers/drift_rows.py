"""Rows that all monitors count: 20 numbers and 10 categories, of which the first of each has moved.

Needs NumPy only, so that every peer's venv has it. `measure` is what every peer is measured by.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

NUMBERS, WORDS, LEVELS = 20, 10, 12
MORE, TIMES = 1000, 5
CHANGED = ["n0", "c0"]


def rows(seed: int, n: int, changed: bool) -> dict[str, np.ndarray]:
    """Half of the numbers are bell-shaped, the others skewed; the words have 12 levels of falling frequency."""
    rng = np.random.default_rng([seed, n, changed])
    found = {f"n{i}": rng.normal(size=n) if i % 2 == 0 else rng.lognormal(size=n) for i in range(NUMBERS)}
    levels = np.array([f"level {i}" for i in range(LEVELS)], dtype=object)
    shares = 1 / np.arange(2.0, LEVELS + 2)
    found |= {f"c{i}": levels[rng.choice(LEVELS, n, p=shares / shares.sum())] for i in range(WORDS)}
    if changed:
        found["n0"] = found["n0"] + 0.5
        found["c0"] = np.where(found["c0"] == levels[0], levels[1], found["c0"])
    return found


def peak() -> float:
    """Most memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(
    begin: Callable[[dict[str, np.ndarray]], Any],
    look: Callable[[Any, dict[str, np.ndarray]], list[str]],
    more: Callable[[Any, dict[str, np.ndarray]], list[str]],
    frame: Callable[[dict[str, np.ndarray]], Any],
    imported: float,
    times: int = TIMES,
) -> None:
    """Measure a monitor and write what it cost to the file of the first word: ``OUT.json SEED ROWS``.

    Parameters
    ----------
    begin : takes the reference, gives whatever the two others need.
    look : compares a million rows with it and gives the columns that changed.
    more : the same for 1000 rows that came after them.
    frame : makes what the monitor reads from arrays; not measured.
    imported : processor seconds that the imports took.
    times : how often 1000 rows come.
    """
    out, seed, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    reference, current = frame(rows(seed, n, False)), frame(rows(seed, n, True))
    before = peak()
    started = time.process_time()
    state = begin(reference)
    began = time.process_time()
    found = look(state, current)
    looked = time.process_time()
    parts = [frame(rows(seed + 1 + i, MORE, True)) for i in range(times)]
    again = time.process_time()
    last = [more(state, part) for part in parts][-1]
    each = (time.process_time() - again) / times
    said = {"import": imported, "begin": began - started, "look": looked - began, "more": each}
    said |= {"before": before, "peak": peak(), "found": sorted(found), "found_more": sorted(last)}  # type: ignore[dict-item]
    with open(out, "w") as file:
        json.dump(said, file)
