"""Calibration: the probabilities no longer come true."""

from __future__ import annotations

from typing import Any

import numpy as np

from orrery.monitors.monitor import Finding, Monitor, View
from orrery.stats import CalibrationDrift
from orrery.stats.measure import encode

LEAST = 20


class CalibrationMonitor(Monitor):
    """Bets that the mean of label minus probability has left the tolerance, in either direction.

    Null: in each look the expected mean residual is within ``calibration_tolerance`` of zero. A look is one unit.
    Promise: on average at least ``arl`` looks between two false alarms. The first answer to it is a repair: it costs
    nothing, and what changed is often the base rate only.
    """

    name = "calibration"

    def __init__(self, detector: CalibrationDrift) -> None:
        self.detector = detector

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether the model says probabilities of two classes."""
        return view.spec.model.task == "binary"

    @classmethod
    def resume(cls, view: View, state: dict[str, Any]) -> CalibrationMonitor:
        """Return the monitor as it was, or a new one."""
        if state:
            return cls(CalibrationDrift.from_state(state))
        rules = view.spec.monitors
        return cls(CalibrationDrift(tolerance=rules.calibration_tolerance, arl=rules.arl))

    def look(self, view: View) -> Finding:
        """Take in the matured labels since the last look."""
        promise, rows = view.spec.monitors.arl, view.matured
        if len(rows) < LEAST:
            why = f"{len(rows)} matured labels say nothing; {LEAST} are asked for."
            return self.too_little(view, self.detector.statistic, why, answer="repair")
        said = np.asarray(rows["output"].to_list(), dtype=np.float64)[:, 0]
        seen = encode(rows["label"].to_list(), view.classes)
        alarm = self.detector.update(said, seen)
        words = f"said {said.mean():.3f}, was {seen.mean():.3f} on {len(rows)} matured labels"
        return Finding(
            alarm=alarm,
            calm=abs(float(seen.mean() - said.mean())) <= view.spec.monitors.calibration_tolerance,
            statistic=float(self.detector.statistic),
            promise=promise,
            why=f"The probabilities no longer come true: {words}." if alarm else f"{words[0].upper()}{words[1:]}.",
            answer="repair",
        )

    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
        return self.detector.to_state()
