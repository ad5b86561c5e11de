"""Which cell a value falls into, for millions of them: the same answer as a binary search, by a table."""

from __future__ import annotations

import numpy as np

from orrery.stats.checks import FloatArray, IntArray

MANY = 16_384  # values from which a table is worth its making
BOXES = 16_384


class Cells:
    """The cells between edges.

    A table of even boxes says of most values at once where they belong. It reaches from the second edge to the third
    but last, for the outermost may lie far out. Rounding never turns the order of two values around, so only the edges
    in a value's own box leave a question, and nearly every box has one or none.

    Parameters
    ----------
    edges
        Ascending, each once.
    values
        How many will be counted, about: for few a binary search is faster.

    Examples
    --------
    >>> Cells(np.array([0.0, 1.0])).count(np.array([-1.0, 0.0, 0.5, 1.0, np.inf])).tolist()
    [1, 2, 2]
    """

    def __init__(self, edges: FloatArray, values: int = 0) -> None:
        self.edges = edges
        self._low, high = (float(edges[1]), float(edges[-3])) if len(edges) > 4 else (0.0, 0.0)
        width = high - self._low
        self._scale = (BOXES - 1) / width if 0 < width < np.inf else 0.0
        self._table = values >= MANY and 0 < self._scale < np.inf
        if self._table:
            boxes = self._boxes(edges)
            inside = np.bincount(boxes, minlength=BOXES)
            self._before = np.cumsum(inside) - inside  # edges in lower boxes
            self._border = np.full(BOXES, np.inf)
            self._border[boxes[::-1]] = edges[::-1]  # the first edge of each box
            self._crowded = inside > 1

    def count(self, values: FloatArray) -> IntArray:
        """Count, for values that are no nan, how many have how many edges at or below them: shape (edges + 1,)."""
        if self._table:
            boxes = self._boxes(values)
            cells = self._before[boxes] + (values >= self._border[boxes])
            unclear = np.flatnonzero(self._crowded[boxes])
            cells[unclear] = np.searchsorted(self.edges, values[unclear], side="right")
        else:
            cells = np.searchsorted(self.edges, values, side="right")
        return np.bincount(cells, minlength=len(self.edges) + 1)

    def _boxes(self, values: FloatArray) -> IntArray:
        with np.errstate(over="ignore"):  # of a number near the largest there is
            return np.asarray(np.clip((values - self._low) * self._scale, 0, BOXES - 1), dtype=np.int64)
