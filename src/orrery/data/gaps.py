"""Places of a dataset whose rows were erased, and where the rows that are left stand among them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate


class Gaps:
    """Ranges of places that hold no row any more.

    Parameters
    ----------
    ranges : pairs, from a place to before another; in order, and none touches the next.

    Examples
    --------
    >>> gaps = Gaps().more([(2, 3), (5, 7), (3, 4)])
    >>> gaps.ranges, gaps.before(6), [gaps.place(row) for row in range(5)]
    (((2, 4), (5, 7)), 3, [0, 1, 4, 7, 8])
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.ranges = tuple(ranges)
        self._starts = [start for start, _ in self.ranges]
        self._lost = [0, *accumulate(stop - start for start, stop in self.ranges)]
        # How many rows are left before each range: a row with a higher number stands behind it.
        self._left = [start - lost for start, lost in zip(self._starts, self._lost, strict=False)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Gaps) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def more(self, ranges: Iterable[Sequence[int]]) -> Gaps:
        """Return these and others, which may overlap."""
        joined: list[tuple[int, int]] = []
        for start, stop in sorted([*self.ranges, *((int(one[0]), int(one[1])) for one in ranges)]):
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
            elif start < stop:
                joined.append((start, stop))
        return Gaps(joined) if tuple(joined) != self.ranges else self

    def before(self, place: int) -> int:
        """Return how many places before this one are empty."""
        at = bisect_left(self._starts, place)
        if not at:
            return 0
        return self._lost[at] - max(0, self.ranges[at - 1][1] - place)

    def place(self, row: int) -> int:
        """Return the place of the row with this number, from 0, of those that are left."""
        return row + self._lost[bisect_right(self._left, row)]


NONE = Gaps()


def ranges_of(places: Iterable[int]) -> list[tuple[int, int]]:
    """Return places, in order, as ranges.

    Examples
    --------
    >>> ranges_of([3, 4, 5, 9])
    [(3, 6), (9, 10)]
    """
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found
