"""How often somebody may do something: a bucket for each, which fills again evenly."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 10_000


class Allowance:
    """Counts what each does; may be shared by threads.

    As many as may be done in a minute may be done at once; then one at a time, as the bucket fills.

    Parameters
    ----------
    a_minute : how many; 0 for as many as they like.
    now : seconds that only grow.
    """

    def __init__(self, a_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._size, self._now = a_minute, now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, who: str) -> float:
        """Return the seconds until somebody may do it again; 0 if they may now."""
        if not self._size:
            return 0.0
        with self._lock:
            return max(0.0, (1 - self._filled(who)) * 60 / self._size)

    def take(self, who: str) -> float:
        """Count one; return the seconds that it comes too early, 0 if it does not. What comes too early counts not.

        Examples
        --------
        >>> allowance = Allowance(2, now=lambda: 0.0)
        >>> [allowance.take("mara"), allowance.take("mara"), allowance.take("mara"), allowance.take("olaf")]
        [0.0, 0.0, 30.0, 0.0]
        """
        if not self._size:
            return 0.0
        with self._lock:
            left = self._filled(who)
            if left < 1:
                return (1 - left) * 60 / self._size
            self._left[who] = (left - 1, self._now())
            self._left.move_to_end(who)
            while len(self._left) > REMEMBERED:
                self._left.popitem(last=False)
        return 0.0

    def _filled(self, who: str) -> float:
        left, at = self._left.get(who, (float(self._size), self._now()))
        return min(float(self._size), left + (self._now() - at) * self._size / 60)
