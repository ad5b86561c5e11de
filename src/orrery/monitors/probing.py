"""Probing: requests crowd around one another, or spread everywhere, as of somebody who wants to copy the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from orrery.data.arrays import inputs_of
from orrery.monitors.distribution import units_of
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.stats.callers import Caller, Callers
from orrery.stats.neighbours import BLOCK, Crowding, Pattern

NAMED = 3  # requests that the sentence names


class ProbingMonitor(Monitor):
    """Bets that more requests than usual are very near to, or very far from, the nearest of the hundred around them.

    A sweep over one column and a walk along the decision boundary are near: each query is a small change of another.
    Queries drawn at random from all that is possible are far: ordinary rows come in kinds. Rows that are equal say
    neither. All requests are looked at as one stream, and where requests say who asks, each of the eight callers with
    the most of them by itself, too.
    Null: in expectation at most as many are near, and as many far, as of the champion's newest training rows (about one
    in a hundred each), plus ``probing_tolerance``; of one caller's, plus a fifth. A hundred requests in a row are one
    unit, and a caller's newest hundred.
    Promise: on average at least ``arl`` looks between two false alarms, of stream and callers together.
    """

    name = "probing"
    trains = False

    def __init__(self, stream: Crowding, callers: Callers) -> None:
        self.stream, self.callers = stream, callers

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether it is known how near to each other ordinary rows are."""
        return view.score is not None and view.usual is not None

    @classmethod
    def resume(cls, view: View, state: dict[str, Any]) -> ProbingMonitor:
        """Return the monitor as it was, or a new one."""
        assert view.score is not None and view.usual is not None
        if "callers" in state:  # a state of before there were callers begins anew
            stream = Crowding.from_state(state["stream"], view.score, view.usual)
            return cls(stream, Callers.from_state(state["callers"], view.score, view.usual))
        rules = view.spec.monitors
        # Each promises twice as much: the mean of both keeps the promise, and reaches it when one does.
        stream = Crowding(view.score, view.usual, tolerance=rules.probing_tolerance, arl=2 * rules.arl)
        return cls(stream, Callers(view.score, view.usual, arl=2 * rules.arl))

    def look(self, view: View) -> Finding:
        """Compare the distances of this look's requests with those of ordinary rows."""
        assert view.score is not None
        promise, inputs = view.spec.monitors.arl, inputs_of(view.requests, view.score)
        found = self.stream.update(inputs, units_of(view))
        if found is None:
            return self.too_little(
                view, self._statistic, f"{len(view.requests)} requests say nothing; {BLOCK} are asked for."
            )
        callers = self._by_caller(view, inputs)
        alarmed = [one for one in callers if one.pattern.alarm]
        blame = alarmed[0].pattern.blame if alarmed else found.blame
        alarm = found.alarm or bool(alarmed)
        return Finding(
            alarm=alarm,
            calm=not alarm and self.stream.usually(found) and all(one.calm for one in callers),
            statistic=self._statistic,
            promise=promise,
            why=self._words(view, found, callers),
            blame=[(name, round(part, 4)) for name, part in blame[:5]] if alarm else [],
            severity={side: round(share, 6) for side, share in found.shares.items()},
            trains=self.trains,
        )

    @property
    def _statistic(self) -> float:
        return float(self.stream.statistic + self.callers.statistic) / 2

    def _by_caller(self, view: View, inputs: Mapping[str, npt.NDArray[np.generic]]) -> list[Caller]:
        if "_caller" not in view.requests.columns or not view.requests["_caller"].count():
            return []
        return self.callers.update(inputs, view.requests["_caller"].to_list())

    def _words(self, view: View, found: Pattern, callers: list[Caller]) -> str:
        if callers and callers[0].pattern.alarm:
            one = callers[0]
            whose = f"the newest of {one.rows:,} requests of {one.name}"
            return self._pattern_in_words(view, one.pattern, whose)
        if found.alarm:
            return self._pattern_in_words(view, found, "the requests")
        shares = f"{found.shares['near']:.1%} are very near to another one and {found.shares['far']:.1%} very far"
        alone = ""
        if callers:
            alone = f"; {len(callers)} {'callers were' if len(callers) > 1 else 'caller was'} looked at alone"
        return f"The requests are as far from each other as training rows: {shares}{alone}."

    def _pattern_in_words(self, view: View, found: Pattern, whose: str) -> str:
        share = found.shares[found.side]
        named = ", ".join(view.requests["_id"][found.rows[-NAMED:].tolist()]) if "_id" in view.requests.columns else ""
        such = f", such as {named}" if named else ""
        if found.side == "near":
            columns = ", ".join(f"{name} ({part:.0%})" for name, part in found.blame[:3])
            what = f"are small changes of another one{such}, as a sweep or a walk is"
            return f"{share:.0%} of {whose} {what}. They differ in {columns}."
        return f"{share:.0%} of {whose} are far from any other{such}, as queries drawn from all that is possible."

    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
        return {"stream": self.stream.to_state(), "callers": self.callers.to_state()}
