"""Estimated decay: what the loss should be on requests whose labels are not known yet."""

from __future__ import annotations

import numpy as np

from orrery.data.arrays import as_trained, columns_of
from orrery.monitors.decay import LEAST, DecayMonitor
from orrery.monitors.monitor import View
from orrery.stats import MeanDetector
from orrery.stats.checks import FloatArray
from orrery.stats.estimate import LEAST_ROWS, calibration_of, expected_losses
from orrery.stats.ratio import effective_size


class EstimatedMonitor(DecayMonitor):
    """Bets that the loss to be expected of a look's answers is above what was promised at release, plus the tolerance.

    The expectation is taken over the champion's own probabilities, calibrated on the untouched rows, each of which
    counts as much as it is like the requests of the look: so it sees requests that became harder, also where there are
    more of those on which the champion is overconfident, and not that labels came to depend on the inputs otherwise.
    Null: the expected mean loss of each look's requests is at most the promised one plus ``decay_tolerance``, *if* the
    calibrated probabilities still come true. A look is one unit: its rows share the calibration.
    Promise: on average at least ``arl`` looks between two false alarms. It may start a training, never a promotion.
    """

    name = "estimated"
    trains = False

    def __init__(self, detector: MeanDetector, bound: float) -> None:
        super().__init__(detector, bound)
        self._like = ""  # what the calibration of the last look stands on, in words

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
        untouched = view.untouched
        if untouched is None:
            return "There are no untouched rows to calibrate the probabilities on."
        weights = self._likeness(view)
        calibration = calibration_of(untouched.outputs, untouched.labels, weights)
        rows = len(untouched.labels)
        like = rows if weights is None else effective_size(weights)
        if calibration is None and like < LEAST_ROWS <= rows:
            return (
                f"Of {rows:,} untouched rows only as much as {like:.0f} are like the requests, too few to calibrate on."
            )
        if calibration is None:
            return "The untouched rows are too few to calibrate the probabilities on, or of one class."
        alike = "each counts the same" if weights is None else f"those like the requests count as much as {like:,.0f}"
        self._like = f"calibrated on {rows:,} untouched rows, of which {alike}"
        outputs = np.asarray(answers, dtype=np.float64)
        primary = view.spec.rollout.primary
        return expected_losses(primary, outputs, calibration, cap=self.bound, own=view.own)

    def _likeness(self, view: View) -> FloatArray | None:
        """Return how like the requests each untouched row is; None where their inputs cannot be compared."""
        if view.joint is None or view.untouched is None or view.untouched.encoded is None:
            return None
        columns = columns_of(as_trained(view.requests, view.joint.numbers), view.joint.columns)
        return view.untouched.likeness(view.joint, view.joint.encode(columns))

    def words(self, mean: float, rows: int, view: View, *, alarm: bool) -> str:
        """Return what was found, as a sentence."""
        primary, promised = view.spec.rollout.primary, f"promised {view.expected_loss:.4g}"
        words = f"Without labels {primary} {mean:.4g} is to be expected on {rows} requests, {promised} ({self._like})"
        return f"{words}: they became harder for this model." if alarm else f"{words}."
