"""What the monitors of features, outputs and segments have in common: counts over fixed cells, and one detector."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl

from orrery.monitors.monitor import Finding, Monitor, View
from orrery.stats import FeatureDrift, Look, TableSketch
from orrery.stats.table import Column

LEAST = 20  # requests below which a look says nothing
SEVERE = 0.2  # the customary limit of the population stability index; used to see that a cause is gone, never to alarm


class DistributionMonitor(Monitor):
    """Bets that what requests bring, or get, is distributed otherwise than in its reference.

    Null: no column moved by more than a tolerance in total variation from the reference.
    Promise: on average at least ``arl`` looks between two false alarms, however the columns depend on each other.
    """

    bins: ClassVar[int] = 10
    """Bins of a number, and categories that are counted by themselves."""

    def __init__(self, drift: FeatureDrift) -> None:
        self.drift = drift

    @classmethod
    @abstractmethod
    def reference(cls, view: View) -> TableSketch:
        """Return what the look is compared with; without columns there is nothing to watch."""

    @classmethod
    def tolerance(cls, view: View) -> float:
        """Return the movement, in total variation, that does not matter."""
        return view.spec.monitors.tolerance

    @abstractmethod
    def columns(self, view: View) -> Mapping[str, Column]:
        """Return the columns of this look's requests as the sketches read them."""

    @abstractmethod
    def words(self, look: Look, view: View) -> str:
        """Return what was found, as a sentence."""

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether there is a column to watch."""
        return bool(cls.reference(view).features)

    @classmethod
    def resume(cls, view: View, state: dict[str, Any]) -> DistributionMonitor:
        """Return the monitor as it was, or a new one."""
        reference = cls.reference(view)
        if state:
            return cls(FeatureDrift.from_state(state, reference))
        return cls(FeatureDrift(reference, tolerance=cls.tolerance(view), arl=view.spec.monitors.arl, bins=cls.bins))

    def look(self, view: View) -> Finding:
        """Compare this look's requests with the reference."""
        promise = view.spec.monitors.arl
        if len(view.requests) < LEAST:
            why = f"{len(view.requests)} requests say nothing; {LEAST} are asked for."
            statistic = self.drift.statistic
            return self.too_little(view, statistic, why)
        batch = self.reference(view).empty_like().add(self.columns(view))
        look = self.drift.update(batch, units=min(units_of(view), batch.rows) or None)
        severity = {name: round(float(one.psi), 4) for name, one in look.severity.items()}
        limit = SEVERE + self._by_chance(len(view.requests))
        return Finding(
            alarm=look.alarm,
            calm=not look.alarm and max(severity.values(), default=0.0) < limit,
            statistic=float(look.statistic),
            promise=promise,
            why=self.words(look, view),
            blame=[(name, round(float(share), 4)) for name, share in look.blame[:5]],
            severity=severity,
            trains=self.trains,
        )

    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
        return self.drift.to_state()

    def _by_chance(self, rows: int) -> float:
        """Return the index that chance alone may give few rows: its mean and three standard deviations of it.

        It is a chi-squared variable with as many degrees of freedom as there are bins, missing and outside included.
        """
        bins = self.bins + 2
        return (bins + 3 * math.sqrt(2 * bins)) / rows


def units_of(view: View, rows: pl.DataFrame | None = None) -> float:
    """Return how many independent units the requests of a look, or some, are: rows of one day share its weather."""
    unit, requests = view.spec.rollout.unit, view.requests if rows is None else rows
    if unit == "row":
        return float(len(requests))
    if unit in ("day", "hour"):
        return float(requests["_at"].dt.truncate("1d" if unit == "day" else "1h").n_unique())
    return float(requests[unit].n_unique()) if unit in requests.columns else float(len(requests))
