"""Anomalies: more requests are strange than chance allows, each by itself."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from orrery.data.arrays import inputs_of
from orrery.monitors.distribution import LEAST, units_of
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.stats import MeanDetector
from orrery.stats.anomaly import AnomalyScore

NAMED = 3  # requests that the sentence names


class AnomalyMonitor(Monitor):
    """Bets that requests score beyond one in a thousand untouched rows more often than that.

    Null: in expectation at most one in a thousand requests scores 3 or more (an upper bound of it, for the level was
    found among so many untouched rows), plus ``anomaly_tolerance``. With fewer than 999 untouched rows the level is one
    in a hundred.
    Promise: on average at least ``arl`` looks between two false alarms.
    """

    name = "anomalies"
    trains = False

    def __init__(self, detector: MeanDetector) -> None:
        self.detector = detector

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether the champion learned to tell what is strange."""
        return view.score is not None

    @classmethod
    def resume(cls, view: View, state: dict[str, Any]) -> AnomalyMonitor:
        """Return the monitor as it was, or a new one."""
        if state:
            return cls(MeanDetector.from_state(state))
        assert view.score is not None
        rules = view.spec.monitors
        limit = view.score.at_most(level_of(view.score))
        return cls(MeanDetector(limit, tolerance=rules.anomaly_tolerance, arl=rules.arl))

    def look(self, view: View) -> Finding:
        """Count the strange ones among this look's requests."""
        assert view.score is not None
        promise, level = view.spec.monitors.arl, level_of(view.score)
        rows = view.requests.filter(pl.col("_anomaly").is_not_null()) if "_anomaly" in view.requests.columns else NONE
        if len(rows) < LEAST:
            return self.too_little(
                view, self.detector.statistic, f"{len(rows)} scored requests say nothing; {LEAST} are asked for."
            )
        strange = rows.filter(pl.col("_anomaly") >= level - 1e-9).sort("_anomaly", descending=True, maintain_order=True)
        share = len(strange) / len(rows)
        alarm = bool(self.detector.update([share], [units_of(view, rows)]))
        blame = view.score.blame(inputs_of(strange, view.score)) if len(strange) else []
        allowed = self.detector.limit + self.detector.tolerance
        return Finding(
            alarm=alarm,
            calm=not alarm and share <= allowed + 3 * math.sqrt(allowed / len(rows)),
            statistic=float(self.detector.statistic),
            promise=promise,
            why=self._words(strange, share, blame, level),
            blame=[(name, round(part, 4)) for name, part in blame[:5]],
            severity={"strange": round(share, 6)},
            trains=self.trains,
        )

    def _words(self, strange: pl.DataFrame, share: float, blame: list[tuple[str, float]], level: int) -> str:
        beyond = f"stranger than one in {10**level} untouched rows"
        if not len(strange):
            return f"No request is {beyond}."
        which = ", ".join(f"{name} ({part:.0%})" for name, part in blame[:3])
        such = f", such as {', '.join(strange['_id'].head(NAMED))}" if "_id" in strange.columns else ""
        return f"{share:.2%} of the requests are {beyond}{such}. To blame: {which or 'no column by itself'}."

    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
        return self.detector.to_state()


NONE = pl.DataFrame()


def level_of(score: AnomalyScore) -> int:
    """Return the score from which on a request counts as strange: 3, or 2 where too few rows were ranked to say 3."""
    return 3 if score.highest >= 3 - 1e-9 else 2
