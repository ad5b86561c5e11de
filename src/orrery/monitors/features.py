"""Feature drift: the requests are not like the rows that the champion learned from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from orrery.monitors.monitor import Finding, Monitor, View
from orrery.stats import FeatureDrift, NumericSketch

LEAST = 20  # requests below which a look says nothing
BINS = 12  # of a feature, about: ten, missing and outside
SEVERE = 0.2  # the customary limit of the population stability index; used to see that a cause is gone, never to alarm


class FeatureMonitor(Monitor):
    """Bets on every feature that its distribution moved by more than the tolerance.

    Null: no feature moved by more than ``tolerance`` in total variation from the champion's newest training rows.
    Promise: on average at least ``arl`` looks between two false alarms, however the features depend on each other.
    """

    name = "features"

    def __init__(self, drift: FeatureDrift) -> None:
        self.drift = drift

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether there is a feature to watch."""
        return bool(view.reference.features)

    @classmethod
    def resume(cls, view: View, state: dict[str, Any]) -> FeatureMonitor:
        """Return the monitor as it was, or a new one."""
        if state:
            return cls(FeatureDrift.from_state(state, view.reference))
        rules = view.spec.monitors
        return cls(FeatureDrift(view.reference, tolerance=rules.tolerance, arl=rules.arl))

    def look(self, view: View) -> Finding:
        """Compare this look's requests with the reference."""
        promise = view.spec.monitors.arl
        if len(view.requests) < LEAST:
            why = f"{len(view.requests)} requests say nothing; {LEAST} are asked for."
            statistic = self.drift.statistic
            return Finding(alarm=False, calm=True, statistic=statistic, promise=promise, why=why, insufficient=True)
        batch = view.reference.empty_like().add(self._columns(view))
        look = self.drift.update(batch, units=_units(view))
        blame = [(name, round(float(share), 4)) for name, share in look.blame[:5]]
        severity = {name: round(float(one.psi), 4) for name, one in look.severity.items()}
        worst = ", ".join(f"{name} ({share:.0%} of the evidence)" for name, share in blame[:3])
        why = (
            f"The requests are no longer like the training data: {worst}."
            if look.alarm
            else f"The requests are like the training data; evidence {look.statistic:.3g} of {promise}."
        )
        return Finding(
            alarm=look.alarm,
            calm=not look.alarm and max(severity.values(), default=0.0) < SEVERE + _by_chance(len(view.requests)),
            statistic=float(look.statistic),
            promise=promise,
            why=why,
            blame=blame,
            severity=severity,
        )

    def _columns(self, view: View) -> dict[str, np.ndarray[Any, Any]]:
        """Return what the requests brought; words where the training data have numbers are missing values."""
        features = view.reference.features
        words = [
            name
            for name, sketch in features.items()
            if isinstance(sketch, NumericSketch) and view.requests.schema.get(name) == pl.String
        ]
        return columns_of(view.requests.with_columns(pl.col(words).cast(pl.Float64, strict=False)), list(features))

    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
        return self.drift.to_state()


def _units(view: View) -> float:
    """Return how many independent units the requests of a look are: rows of one day share its weather."""
    unit, requests = view.spec.rollout.unit, view.requests
    if unit == "row":
        return float(len(requests))
    if unit in ("day", "hour"):
        return float(requests["_at"].dt.truncate("1d" if unit == "day" else "1h").n_unique())
    return float(requests[unit].n_unique()) if unit in requests.columns else float(len(requests))


def _by_chance(rows: int) -> float:
    """Return the index that chance alone may give few rows: its mean and three standard deviations (chi-squared)."""
    return (BINS + 3 * math.sqrt(2 * BINS)) / rows


def columns_of(frame: pl.DataFrame, names: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return columns as the sketches read them; a column that is not there is all missing."""
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for name in names:
        if name not in frame.columns:
            columns[name] = np.full(len(frame), np.nan)
        elif frame[name].dtype.is_numeric() or frame[name].dtype == pl.Boolean:
            columns[name] = frame[name].cast(pl.Float64).to_numpy()
        else:
            columns[name] = frame[name].cast(pl.String).to_numpy().astype(object)
    return columns
