"""What was denied is written down, but nobody can fill the timeline by being denied."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline

QUIET = 60.0
"""Seconds after a written denial in which more of the same are only counted; the next one written says how many."""
REMEMBERED = 1000
STRANGER = "stranger"
"""Who was not let in: a name that was only claimed is not written down, for people type passwords there."""


class Denials:
    """Writes denied attempts; may be shared by threads.

    Parameters
    ----------
    timeline : where to.
    now : seconds that only grow.
    """

    def __init__(self, timeline: Timeline, now: Callable[[], float] = time.monotonic) -> None:
        self._timeline, self._now = timeline, now
        self._last: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def note(
        self, who: str, what: str, why: str, *, project: str = "", version: int | None = None, of_model: bool = False
    ) -> None:
        """Write that somebody was denied something.

        Parameters
        ----------
        who : account, :data:`STRANGER` for who is not known.
        what : the permission, or the entrance.
        why : a sentence.
        project : what it was about; what is asked for need not exist.
        of_model : whether it is there, so that the event may stand on its timeline.
        """
        key = (who, what, project)
        with self._lock:
            at, more = self._last.get(key, (float("-inf"), 0))
            if self._now() - at < QUIET:
                self._last[key] = (at, more + 1)
                return
            self._last.pop(key, None)
            self._last[key] = (self._now(), 0)
            while len(self._last) > REMEMBERED:
                self._last.popitem(last=False)
        data: dict[str, object] = {"what": what, "project": project}
        if more:
            data["more"] = more
            why = f"{why} ({more} more like it since the last one that was written.)"
        draft = Draft(kind="denied", actor=who, why=why, data=data, model=project if of_model else "", version=version)
        self._timeline.append([draft])
