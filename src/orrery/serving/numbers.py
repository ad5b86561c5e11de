"""What a model says, as the numbers that are given and written down."""

from __future__ import annotations

import math
from typing import Any

from orrery.serving.assignment import Slot
from orrery.serving.refusals import ModelFailed


def numbers(said: list[Any], slot: Slot) -> list[list[Any]]:
    """Return the output as one list for each row; of two probabilities of a binary task, the positive one's.

    Raises
    ------
    ModelFailed
        If the rows are of different lengths, or empty.
    """
    rows = [row if type(row) is list else [row] for row in said]
    widths = set(map(len, rows))
    width = widths.pop()
    if not width or widths:
        raise ModelFailed(f"Version {slot.version} of {slot.model} returned rows of different lengths.")
    if slot.task == "binary" and width == 2:
        rows = [row[1:] for row in rows]
    return rows if slot.repair is None else [[repaired(row[0], *slot.repair)] for row in rows]


def repaired(probability: float, slope: float, intercept: float) -> float:
    """Return a probability with Platt's two numbers applied on the logit scale.

    Examples
    --------
    >>> round(repaired(0.5, 1.0, 1.0), 3)
    0.731
    """
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    return 0.5 * (1.0 + math.tanh(0.5 * (slope * math.log(clipped / (1 - clipped)) + intercept)))
