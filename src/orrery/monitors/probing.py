"""Probing: requests crowd around one another, or spread everywhere, as of somebody who wants to copy the model."""

from __future__ import annotations

from typing import Any

from orrery.data.arrays import inputs_of
from orrery.monitors.distribution import units_of
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.stats.neighbours import BLOCK, Crowding, Pattern

NAMED = 3  # requests that the sentence names


class ProbingMonitor(Monitor):
    """Bets that more requests than usual are very near to, or very far from, the nearest of the hundred around them.

    A sweep over one column and a walk along the decision boundary are near: each query is a small change of another.
    Queries drawn at random from all that is possible are far: ordinary rows come in kinds. Rows that are equal say
    neither. Who asks is not known: all requests are looked at as one stream.
    Null: in expectation at most as many are near, and as many far, as of the champion's newest training rows (about one
    in a hundred each), plus ``probing_tolerance``. A hundred requests in a row are one unit.
    Promise: on average at least ``arl`` looks between two false alarms.
    """

    name = "probing"
    trains = False

    def __init__(self, crowding: Crowding) -> None:
        self.crowding = crowding

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether it is known how near to each other ordinary rows are."""
        return view.score is not None and view.usual is not None

    @classmethod
    def resume(cls, view: View, state: dict[str, Any]) -> ProbingMonitor:
        """Return the monitor as it was, or a new one."""
        assert view.score is not None and view.usual is not None
        if state:
            return cls(Crowding.from_state(state, view.score, view.usual))
        rules = view.spec.monitors
        return cls(Crowding(view.score, view.usual, tolerance=rules.probing_tolerance, arl=rules.arl))

    def look(self, view: View) -> Finding:
        """Compare the distances of this look's requests with those of ordinary rows."""
        assert view.score is not None
        promise = view.spec.monitors.arl
        found = self.crowding.update(inputs_of(view.requests, view.score), units_of(view))
        if found is None:
            return self.too_little(
                view, self.crowding.statistic, f"{len(view.requests)} requests say nothing; {BLOCK} are asked for."
            )
        return Finding(
            alarm=found.alarm,
            calm=not found.alarm and self.crowding.usually(found),
            statistic=float(self.crowding.statistic),
            promise=promise,
            why=self._words(view, found),
            blame=[(name, round(part, 4)) for name, part in found.blame[:5]] if found.alarm else [],
            severity={side: round(share, 6) for side, share in found.shares.items()},
            trains=self.trains,
        )

    def _words(self, view: View, found: Pattern) -> str:
        if not found.alarm:
            shares = f"{found.shares['near']:.1%} are very near to another one and {found.shares['far']:.1%} very far"
            return f"The requests are as far from each other as training rows: {shares}."
        share = found.shares[found.side]
        named = ", ".join(view.requests["_id"][found.rows[-NAMED:].tolist()]) if "_id" in view.requests.columns else ""
        such = f", such as {named}" if named else ""
        if found.side == "near":
            columns = ", ".join(f"{name} ({part:.0%})" for name, part in found.blame[:3])
            what = "are small changes of another one"
            return f"{share:.0%} of the requests {what}{such}, as a sweep or a walk is. They differ in {columns}."
        return f"{share:.0%} of the requests are far from any other{such}, as queries drawn from all that is possible."

    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
        return self.crowding.to_state()
