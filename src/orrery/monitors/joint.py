"""Joint drift: each feature alone looks as it did, and they no longer go together as they did."""

from __future__ import annotations

import math
from typing import Any

from orrery.data.arrays import as_trained, columns_of
from orrery.monitors.distribution import LEAST, units_of
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.stats.joint import JointDrift, JointLook


class JointMonitor(Monitor):
    """Bets that a classifier, fitted on past looks only, tells requests from training rows.

    Null: the joint distribution of the features is within ``tolerance`` in total variation of that of the newest
    training rows; whatever the classifier is, it cannot tell more rows apart then.
    Promise: on average at least ``arl`` looks between two false alarms.
    """

    name = "joint"
    trains = False

    def __init__(self, drift: JointDrift) -> None:
        self.drift = drift

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether there are two features to watch, and rows to learn from."""
        return view.joint is not None

    @classmethod
    def resume(cls, view: View, state: dict[str, Any]) -> JointMonitor:
        """Return the monitor as it was, or a new one."""
        assert view.joint is not None
        if state:
            return cls(JointDrift.from_state(state, view.joint))
        return cls(JointDrift(view.joint, tolerance=view.spec.monitors.tolerance, arl=view.spec.monitors.arl))

    def look(self, view: View) -> Finding:
        """Let the classifier of the past looks tell this one's requests apart, then learn from them."""
        promise, reference = view.spec.monitors.arl, self.drift.reference
        if len(view.requests) < LEAST:
            return self.too_little(
                view, self.drift.statistic, f"{len(view.requests)} requests say nothing; {LEAST} are asked for."
            )
        columns = columns_of(as_trained(view.requests, reference.numbers), list(reference.columns))
        look = self.drift.update(columns, units=units_of(view))
        by_chance = 1.5 / math.sqrt(len(view.requests))  # three standard deviations of a share
        return Finding(
            alarm=look.alarm,
            calm=not look.alarm and look.apart <= view.spec.monitors.tolerance + by_chance,
            statistic=float(look.statistic),
            promise=promise,
            why=self._words(look, promise),
            blame=[(name, round(share, 4)) for name, share in look.blame[:5]],
            severity={"told apart": round(max(look.apart, 0.0), 4)},
            trains=self.trains,
        )

    def _words(self, look: JointLook, promise: int) -> str:
        if not look.alarm:
            return f"The requests cannot be told from training rows; evidence {look.statistic:.3g} of {promise}."
        blamed = ", ".join(f"{name} ({share:.0%})" for name, share in look.blame[:3])
        apart = f"{max(look.apart, 0.0):.0%} more of them than of training rows are taken for production"
        return f"The requests can be told from training rows: {apart}, most of all by {look.most}. To blame: {blamed}."

    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
        return self.drift.to_state()
