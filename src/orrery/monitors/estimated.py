"""Estimated decay: what the loss should be on requests whose labels are not known yet."""

from __future__ import annotations

import numpy as np

from orrery.monitors.decay import LEAST, DecayMonitor
from orrery.monitors.monitor import View
from orrery.stats.checks import FloatArray
from orrery.stats.estimate import expected_losses


class EstimatedMonitor(DecayMonitor):
    """Bets that the loss to be expected of a look's answers is above what was promised at release, plus the tolerance.

    The expectation is taken over the champion's own probabilities, calibrated on the untouched rows: so it sees
    requests that became harder, and not that what is predicted came to depend on the inputs in another way.
    Null: the expected mean loss of each look's requests is at most the promised one plus ``decay_tolerance``, *if* the
    calibrated probabilities still come true. A look is one unit: its rows share the calibration.
    Promise: on average at least ``arl`` looks between two false alarms. It may start a training, never a promotion.
    """

    name = "estimated"
    trains = False

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether there are probabilities, and a loss to compare with."""
        return view.spec.model.task != "regression" and bool(np.isfinite(view.expected_loss))

    @classmethod
    def rows_are_units(cls, view: View) -> bool:
        """Rows are none, whatever the project says: the error of the calibration is in all of them."""
        return False

    def losses(self, view: View) -> FloatArray | str:
        """Return the expected loss of each request, or a sentence that says why nothing can be said."""
        answers = view.requests["_output"].drop_nulls().to_list() if "_output" in view.requests.columns else []
        if len(answers) < LEAST:
            return f"{len(answers)} answers say nothing; {LEAST} are asked for."
        if view.calibration is None:
            return "The untouched rows are too few to calibrate the probabilities on, or of one class."
        outputs = np.asarray(answers, dtype=np.float64)
        primary = view.spec.rollout.primary
        return expected_losses(primary, outputs, view.calibration, cap=self.bound, own=view.own)

    def words(self, mean: float, rows: int, view: View, *, alarm: bool) -> str:
        """Return what was found, as a sentence."""
        primary, promised = view.spec.rollout.primary, f"promised {view.expected_loss:.4g}"
        words = f"Without labels {primary} {mean:.4g} is to be expected on {rows} requests, {promised}"
        return f"{words}: they became harder for this model." if alarm else f"{words}."
