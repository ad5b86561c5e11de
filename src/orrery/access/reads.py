"""Who read personal data, or the chain itself, is written down: once, and then counted for a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from orrery.access.seldom import Seldom, with_more
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline


class Reads:
    """Writes reads; may be shared by threads.

    Parameters
    ----------
    timeline : where to.
    now : seconds that only grow.
    """

    def __init__(self, timeline: Timeline, now: Callable[[], float] = time.monotonic) -> None:
        self._timeline, self._seldom = timeline, Seldom(now)

    def note(
        self, who: str, what: str, why: str, *, of: str = "", columns: Sequence[str] = (), model: str = ""
    ) -> None:
        """Write that somebody read something.

        Parameters
        ----------
        who : account, or the name that was said.
        what : ``rows``, ``quarantine``, ``profile``, ``predictions``, ``encrypted``, ``artifacts``, ``traces``,
            ``evaluation rows``, ``commits`` or ``chain``.
        why : a sentence.
        of : the dataset or model.
        columns : the personal columns; their names, never a value.
        model : on whose timeline it stands; empty for none.
        """
        more = self._seldom.more(who, what, of)
        if more is None:
            return
        data: dict[str, object] = {"what": what, "of": of, "columns": list(columns), **({"more": more} if more else {})}
        self._timeline.append([Draft(kind="read", actor=who, why=with_more(why, more), data=data, model=model)])
