"""Decay: the loss on matured labels is higher than the champion's was on untouched rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from orrery.monitors.monitor import Finding, Monitor, View
from orrery.stats import MeanDetector
from orrery.stats.checks import FloatArray
from orrery.stats.measure import bound_of, encode, row_losses

LEAST = 20


class DecayMonitor(Monitor):
    """Bets that the mean loss of a look is above what was promised at release, plus the tolerance.

    Null: the expected mean loss of each look's matured labels is at most the champion's on untouched rows (upper end
    of its interval) plus ``decay_tolerance``. A look is one unit, so its rows may depend on each other in any way;
    unless the project says that its unit is the row: then each row is a bet, and a change is found many looks sooner.
    Promise: on average at least ``arl`` looks between two false alarms.
    """

    name = "decay"

    def __init__(self, detector: MeanDetector, bound: float) -> None:
        self.detector = detector
        self.bound = bound

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether there is a loss to compare with."""
        return bool(np.isfinite(view.expected_loss))

    @classmethod
    def resume(cls, view: View, state: dict[str, Any]) -> DecayMonitor:
        """Return the monitor as it was, or a new one."""
        bound = bound_of(view.spec.rollout.primary, view.scale, view.own)
        if state:
            return cls(MeanDetector.from_state(state["detector"]), state["bound"])
        rules = view.spec.monitors
        limit = min(max(view.expected_loss / bound, 0.001), 0.98)  # a promise of nothing at all cannot be bet on
        tolerance = min(rules.decay_tolerance / bound, 0.99 - limit)
        # few units, each the mean of many rows: small bets only delay
        grid: dict[str, Any] = {} if cls.rows_are_units(view) else {"n_bets": 4, "smallest_bet": 0.3}
        return cls(MeanDetector(limit, tolerance=max(tolerance, 0.0), arl=rules.arl, **grid), bound)

    def look(self, view: View) -> Finding:
        """Take in the mean loss of what came in since the last look."""
        promise, losses = view.spec.monitors.arl, self.losses(view)
        if isinstance(losses, str):
            return self.too_little(view, self.detector.statistic, losses, reason="decay")
        mean = float(losses.mean())
        units = np.minimum(losses / self.bound, 1.0)  # rounding may go beyond
        alarm = self.detector.look(units if self.rows_are_units(view) else [units.mean()])
        return Finding(
            alarm=alarm,
            calm=mean <= view.expected_loss + view.spec.monitors.decay_tolerance,
            statistic=float(self.detector.statistic),
            promise=promise,
            why=self.words(mean, len(losses), view, alarm=alarm),
            reason="decay",
            trains=self.trains,
            excess=mean - view.expected_loss,
            losses=len(losses),
        )

    @classmethod
    def rows_are_units(cls, view: View) -> bool:
        """Say whether each row of a look is a bet of its own."""
        return view.spec.rollout.unit == "row"

    def losses(self, view: View) -> FloatArray | str:
        """Return the loss of each matured label, or a sentence that says why nothing can be said."""
        rows = view.matured
        if len(rows) < LEAST:
            return f"{len(rows)} matured labels say nothing; {LEAST} are asked for."
        outputs = np.asarray(rows["output"].to_list(), dtype=np.float64)
        labels = encode(rows["label"].to_list(), view.classes)
        return row_losses(view.spec.rollout.primary, outputs, labels, cap=self.bound, own=view.own)

    def words(self, mean: float, rows: int, view: View, *, alarm: bool) -> str:
        """Return what was found, as a sentence."""
        words = f"{view.spec.rollout.primary} {mean:.4g} on {rows} matured labels, promised {view.expected_loss:.4g}"
        return f"{words}: the model has decayed." if alarm else f"{words}."

    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
        return {"detector": self.detector.to_state(), "bound": self.bound}
