"""How many rows a model process is given at once, found by measuring."""

from __future__ import annotations

import math

GOAL = 0.1
"""Seconds that a batch may take for the sake of throughput."""

WORTH = 8.0
"""A batch may always take this many times the seconds that it costs before its first row: beyond that, larger ones
hardly answer more rows in a second."""

FIRST, MOST = 2, 4096
GROWTH = 2
"""How many times the largest batch that was measured the next one may have."""

FORGET = 0.05


class Pace:
    """Learns what a batch costs: so many seconds, and so many for each row.

    The two are a line through what was measured, by least squares in which the past fades (with a weight of 0.95 for
    each newer batch). Where all batches were of one size, all is taken for the cost of the batch: then larger ones are
    tried, at most twice as large as any before, and the line is found.

    Examples
    --------
    >>> pace = Pace()
    >>> for rows in (1, 2, 4, 8, 16):
    ...     pace.took(rows, 0.01 * rows)  # a model that works row by row
    >>> pace.limit
    10
    >>> round(pace.seconds(100), 3)
    1.0
    """

    def __init__(self) -> None:
        self._batches = self._rows = self._seconds = self._squares = self._products = 0.0
        self._fixed = self._each = 0.0
        self._largest = 1
        self.limit = FIRST
        """Rows of the next batch at most; a single request may have more."""

    def took(self, rows: int, seconds: float) -> None:
        """Note what a batch took."""
        keep = 1.0 - FORGET
        self._batches = keep * self._batches + 1.0
        self._rows = keep * self._rows + rows
        self._seconds = keep * self._seconds + seconds
        self._squares = keep * self._squares + rows * rows
        self._products = keep * self._products + rows * seconds
        mean_rows, mean_seconds = self._rows / self._batches, self._seconds / self._batches
        spread = self._squares / self._batches - mean_rows**2
        together = self._products / self._batches - mean_rows * mean_seconds
        self._each = max(together / spread, 0.0) if spread > 1e-9 * mean_rows**2 else 0.0
        self._each = min(self._each, mean_seconds / mean_rows)
        self._fixed = max(mean_seconds - self._each * mean_rows, 0.0)
        worth = max(GOAL - self._fixed, WORTH * self._fixed)
        self._largest = max(self._largest, rows)
        most = min(MOST, GROWTH * self._largest)
        self.limit = most if self._each * most <= worth else max(1, math.floor(worth / self._each + 1e-9))

    def seconds(self, rows: int) -> float:
        """Return how long so many rows would take from now."""
        return rows * self._each + math.ceil(rows / self.limit) * self._fixed
