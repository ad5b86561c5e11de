"""Segment shares: who asks is not who the champion learned from."""

from __future__ import annotations

from collections.abc import Mapping

from orrery.data.arrays import counted
from orrery.monitors.distribution import DistributionMonitor
from orrery.monitors.monitor import View
from orrery.stats import Look, TableSketch
from orrery.stats.table import Column

FEWER = 0.8  # of its share in training: a group with less is named as under-represented
NAMED = 3  # groups that the sentence names


class SegmentMonitor(DistributionMonitor):
    """Bets that the groups of a declared segment ask in other shares than they had in training.

    Null: no segment's shares moved by more than ``segment_tolerance`` in total variation from the newest training rows,
    so a group that is smaller than the tolerance may stay away without an alarm. The 20 largest groups count by
    themselves, the others together.
    Promise: on average at least ``arl`` looks between two false alarms.
    """

    name = "segments"
    trains = False
    bins = 20

    @classmethod
    def reference(cls, view: View) -> TableSketch:
        """Return the declared segments in the newest training rows."""
        return view.segments

    @classmethod
    def tolerance(cls, view: View) -> float:
        """Return the share of the requests that may be of other groups."""
        return view.spec.monitors.segment_tolerance

    def columns(self, view: View) -> Mapping[str, Column]:
        """Return the segments of this look's requests."""
        return counted(view.requests, list(view.segments.features))

    def words(self, look: Look, view: View) -> str:
        """Name the groups that are under-represented, or else those that ask more often than they did in training."""
        if not look.alarm:
            evidence = f"evidence {look.statistic:.3g} of {view.spec.monitors.arl}"
            return f"The segments have the shares that they had in training; {evidence}."
        groups = [(name, *group) for name, _ in look.blame for group in self.drift.shares(name)]
        fewer = sorted((one for one in groups if one[3] < FEWER * one[2]), key=lambda one: one[3] - one[2])
        more = sorted((one for one in groups if one[3] > one[2]), key=lambda one: one[2] - one[3])
        named = [f"{name} {group} {now:.1%} (in training {was:.1%})" for name, group, was, now in fewer or more]
        return f"{'Under-represented' if fewer else 'Over-represented'} in the requests: {', '.join(named[:NAMED])}."
