"""Which cell a value falls into, for millions of them: the same answer as a binary search, by a table."""

from __future__ import annotations

import math

import numpy as np

from orrery.stats.checks import FloatArray, IntArray

MANY = 4096  # values after which a table is worth its making
BOXES = 8192


class Cells:
    """The cells between edges, shared by all sketches over them.

    A table of even boxes says of most values at once where they belong; it is made once many have been asked about. It
    reaches from the second edge to the third but last, for the outermost may lie far out. A box is as wide as a power
    of two, so that nothing is rounded. Only where an edge lies within a box are its values searched for.

    Parameters
    ----------
    edges
        Ascending, each once.

    Examples
    --------
    >>> Cells(np.array([0.0, 1.0])).count(np.array([-1.0, 0.0, 0.5, 1.0, np.inf])).tolist()
    [1, 2, 2]
    """

    def __init__(self, edges: FloatArray) -> None:
        self.edges = edges
        self._scale = _boxes_per_unit(edges)
        self._low = np.floor(edges[1] * self._scale) - 1 if self._scale else 0.0
        self._left = float(MANY if self._scale else math.inf)  # values until there is a table
        self._table: IntArray | None = None

    @classmethod
    def near(cls, edges: FloatArray) -> Cells:
        """Move each edge down to the border of its box, where it is the only one in it: nothing is searched for."""
        if scale := _boxes_per_unit(edges):
            with np.errstate(over="ignore", invalid="ignore"):  # the outermost may lie too far out for a box
                boxes = np.floor(edges * scale)
                apart = np.diff(boxes, prepend=-np.inf, append=np.inf) > 0
            alone = apart[1:] & apart[:-1]
            alone[[0, -2, -1]] = False  # what was smallest and largest stays so
            edges = np.where(alone, boxes / scale, edges)
        return cls(edges)

    def count(self, values: FloatArray) -> IntArray:
        """Count, for values that are no nan, how many have how many edges at or below them: shape (edges + 1,)."""
        self._left -= len(values)
        if self._left < 0:
            if self._table is None:
                self._table = self._made()
            cells = self._table[self._boxes(values)]
            unclear = np.flatnonzero(cells < 0)
            cells[unclear] = np.searchsorted(self.edges, values[unclear], side="right")
        else:
            cells = np.searchsorted(self.edges, values, side="right")
        return np.bincount(cells, minlength=len(self.edges) + 1)

    def _made(self) -> IntArray:
        """Give each box its cell, or -1 where an edge lies within it and not on its border."""
        boxes = self._boxes(self.edges)
        on_border = (self._scaled(self.edges) == boxes + self._low) & (boxes > 0)  # the lowest box has no border
        if self._scale < 1:
            on_border &= self.edges != 0  # the smallest numbers below zero become zero when they are scaled
        within = np.bincount(boxes[~on_border], minlength=BOXES) > 0
        return np.where(within, -1, np.cumsum(np.bincount(boxes, minlength=BOXES)))

    def _boxes(self, values: FloatArray) -> IntArray:
        places = self._scaled(values)
        np.floor(places, out=places)
        places -= self._low
        np.maximum(places, 0, out=places)
        np.minimum(places, BOXES - 1, out=places)
        return places.astype(np.int64)

    def _scaled(self, values: FloatArray) -> FloatArray:
        with np.errstate(over="ignore"):  # of a number near the largest there is
            return values * self._scale


def _boxes_per_unit(edges: FloatArray) -> float:
    """Give the power of two that puts the inner edges into the boxes, or 0 where a table cannot be made."""
    width = float(edges[-3]) - float(edges[1]) if len(edges) > 4 else 0.0
    if not 1e-290 < width < 1e290:
        return 0.0
    return math.ldexp(1.0, math.frexp((BOXES - 3) / width)[1] - 1)
