"""What was denied is written down, but nobody can fill the timeline by being denied."""

from __future__ import annotations

import time
from collections.abc import Callable

from orrery.access.seldom import Seldom, with_more
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline

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
        self._timeline, self._seldom = timeline, Seldom(now)

    def note(
        self,
        who: str,
        what: str,
        why: str,
        *,
        project: str = "",
        version: int | None = None,
        of_model: bool = False,
        times: int = 1,
    ) -> None:
        """Write that somebody was denied something.

        Parameters
        ----------
        who : account, :data:`STRANGER` for who is not known.
        what : the permission, or the entrance.
        why : a sentence.
        project : what it was about; what is asked for need not exist.
        of_model : whether it is there, so that the event may stand on its timeline.
        times : how often.
        """
        more = self._seldom.more(who, what, project, times=times)
        if more is None:
            return
        data: dict[str, object] = {"what": what, "project": project, **({"more": more} if more else {})}
        model = project if of_model else ""
        draft = Draft(kind="denied", actor=who, why=with_more(why, more), data=data, model=model, version=version)
        self._timeline.append([draft])
