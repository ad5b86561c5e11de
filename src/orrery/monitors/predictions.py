"""Prediction drift: the champion's answers are not distributed as on the rows that it was judged on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orrery.monitors.distribution import DistributionMonitor
from orrery.monitors.monitor import View
from orrery.stats import Look, NumericSketch, TableSketch
from orrery.stats.checks import FloatArray


class PredictionMonitor(DistributionMonitor):
    """Bets that the distribution of the answers moved by more than the tolerance; it needs no labels.

    Null: the answers moved by at most ``tolerance`` in total variation from those on the untouched rows.
    Promise: on average at least ``arl`` looks between two false alarms.
    That answers move does not say that they are worse: its alarm opens an issue.
    """

    name = "predictions"
    trains = False

    @classmethod
    def reference(cls, view: View) -> TableSketch:
        """Return the champion's answers on untouched rows."""
        return view.outputs

    def columns(self, view: View) -> dict[str, np.ndarray[Any, Any]]:
        """Return this look's answers."""
        outputs = np.asarray(view.requests["_output"].drop_nulls().to_list(), dtype=np.float64)
        return output_columns(view.spec.model.task, outputs, view.classes)

    def words(self, look: Look, view: View) -> str:
        """Say how the answers moved, in the words of the task."""
        evidence = f"evidence {look.statistic:.3g} of {view.spec.monitors.arl}"
        if not look.alarm:
            return f"The answers are distributed as on the untouched rows; {evidence}."
        moved = [self._moved(name, view) for name, _ in look.blame[:2]]
        return f"The answers are no longer distributed as on the untouched rows: {', '.join(moved)}."

    def _moved(self, name: str, view: View) -> str:
        sketch = self.drift.reference.features[name]
        if isinstance(sketch, NumericSketch):
            now = float(np.nanmean(self.columns(view)[name]))
            return f"mean {name} {now:.4g}, was {sketch.mean:.4g}"
        gains = [(recent - before, label, before, recent) for label, before, recent in self.drift.shares(name)]
        _, label, before, recent = max(gains)
        return f"{name} {label} {recent:.1%}, was {before:.1%}"


def output_columns(task: str, outputs: FloatArray, classes: Sequence[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return a model's answers as columns that can be counted.

    Parameters
    ----------
    task : binary, multiclass or regression.
    outputs : as they are logged, shape (rows, k).
    classes : of a multiclass model, in the order of its outputs.

    Examples
    --------
    >>> output_columns("multiclass", np.array([[0.7, 0.3]]), ["red", "blue"])
    {'class': array(['red'], dtype=object), 'confidence': array([0.7])}
    """
    if task == "multiclass":
        names = np.asarray([str(one) for one in classes], dtype=object)
        return {"class": names[outputs.argmax(axis=1)], "confidence": outputs.max(axis=1)}
    return {"probability" if task == "binary" else "answer": outputs[:, 0]}
