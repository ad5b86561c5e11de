"""Days of 30 features that all monitors look at; needs NumPy only, so that every peer's venv has it."""

from __future__ import annotations

import numpy as np

NUMBERS, WORDS = 27, 3
REFERENCE, ROWS, WOBBLE = 50_000, 10_000, 0.03
LEVELS = np.array(["north", "east", "south", "west", "sea"], dtype=object)
SHARES = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
CHANGES = ("0.1 sd shift", "0.2 sd shift", "0.5 sd shift", "category swap", "missing burst")

Columns = dict[str, np.ndarray]


def reference(seed: int) -> Columns:
    return day(np.random.default_rng([seed, 0]), REFERENCE)


def day(rng: np.random.Generator, rows: int = ROWS, wobble: float = 0.0, change: str = "") -> Columns:
    """One day; means wobble by so many sd, and one feature has changed in one of the `CHANGES`."""
    found: Columns = {f"x{i}": rng.normal(rng.normal(0, wobble), 1, rows) for i in range(NUMBERS)}
    found |= {f"c{i}": LEVELS[rng.choice(len(LEVELS), rows, p=SHARES)] for i in range(WORDS)}
    if change.endswith("sd shift"):
        found["x3"] = found["x3"] + float(change.split()[0])
    elif change == "category swap":  # the two most frequent: 15 % of the rows are elsewhere
        swapped = {"north": "east", "east": "north"}
        found["c1"] = np.array([swapped.get(word, word) for word in found["c1"]], dtype=object)
    elif change == "missing burst":
        found["x5"] = np.where(rng.random(rows) < 0.1, np.nan, found["x5"])
    return found


def days(seed: int, kind: str, run: int, number: int) -> Columns:
    """The day of a run: ``quiet``, ``wobble``, or one of the `CHANGES` on top of the wobble."""
    place = ("quiet", "wobble", *CHANGES).index(kind)
    rng = np.random.default_rng([seed, 1 + place, run, number])
    return day(rng, wobble=0.0 if kind == "quiet" else WOBBLE, change=kind if kind in CHANGES else "")
