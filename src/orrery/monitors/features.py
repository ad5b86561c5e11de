"""Feature drift: the requests are not like the rows that the champion learned from."""

from __future__ import annotations

from collections.abc import Mapping

from orrery.data.arrays import as_trained, counted
from orrery.monitors.distribution import DistributionMonitor
from orrery.monitors.monitor import View
from orrery.stats import Look, NumericSketch, TableSketch
from orrery.stats.table import Column


class FeatureMonitor(DistributionMonitor):
    """Bets on every feature that its distribution moved by more than the tolerance.

    Null: no feature moved by more than ``tolerance`` in total variation from the champion's newest training rows.
    Promise: on average at least ``arl`` looks between two false alarms, however the features depend on each other.
    """

    name = "features"

    @classmethod
    def reference(cls, view: View) -> TableSketch:
        """Return the champion's newest training rows."""
        return view.reference

    def columns(self, view: View) -> Mapping[str, Column]:
        """Return what the requests brought; words where the training data have numbers are missing values."""
        features = view.reference.features
        numbers = [name for name, sketch in features.items() if isinstance(sketch, NumericSketch)]
        return counted(as_trained(view.requests, numbers), list(features))

    def words(self, look: Look, view: View) -> str:
        """Name the features to blame."""
        if not look.alarm:
            promise = view.spec.monitors.arl
            return f"The requests are like the training data; evidence {look.statistic:.3g} of {promise}."
        worst = ", ".join(f"{name} ({share:.0%} of the evidence)" for name, share in look.blame[:3])
        return f"The requests are no longer like the training data: {worst}."
