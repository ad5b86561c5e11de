"""What happens often is written down once and then counted for a while, so that nobody can fill the timeline."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

QUIET = 60.0
"""Seconds after something was written down in which more of the same is only counted; the next one says how many."""
REMEMBERED = 1000


class Seldom:
    """Says what is to be written down; may be shared by threads.

    Parameters
    ----------
    now : seconds that only grow.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def more(self, *what: str, times: int = 1) -> int | None:
        """Count something; nothing if it is only counted, else how many were counted and are to be told with this one.

        Parameters
        ----------
        what : what makes two of them alike.
        times : how often it happened.
        """
        with self._lock:
            at, counted = self._last.get(what, (float("-inf"), 0))
            if self._now() - at < QUIET:
                self._last[what] = (at, counted + times)
                return None
            self._last.pop(what, None)
            self._last[what] = (self._now(), 0)
            while len(self._last) > REMEMBERED:
                self._last.popitem(last=False)
            return counted + times - 1


def with_more(why: str, more: int) -> str:
    """Return a reason that says how many more there were.

    Examples
    --------
    >>> with_more("No.", 0), with_more("No.", 3)
    ('No.', 'No. (3 more like it since the last one that was written.)')
    """
    return f"{why} ({more} more like it since the last one that was written.)" if more else why
