"""Fairness in production: groups of protected columns are selected, found and falsely selected alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.data.arrays import columns_of
from orrery.monitors.distribution import LEAST, units_of
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.stats.checks import FloatArray
from orrery.stats.gaps import CRITERIA, FALSE, FOUND, SELECTED, GroupGaps, Outcome
from orrery.stats.measure import encode
from orrery.stats.sketch import CategorySketch, group_of

GROUPS = 16  # watched at most, over all protected columns: the largest
RATES = {SELECTED: "selection rate", FOUND: "true positive rate", FALSE: "false positive rate"}


class Compared(msgspec.Struct, frozen=True):
    """A rate of one look's rows, of a group and of all others: for each row whether it was selected."""

    group: int
    rate: int
    inside: FloatArray
    outside: FloatArray


class FairnessMonitor(Monitor):
    """Bets for each group that its rate is too far from that of all others: selection before labels, errors with them.

    Null: a group is selected between ``ratio`` and ``1 / ratio`` times as often as the others, and its true and false
    positive rates are within ``gap`` of theirs. A row is selected from ``threshold`` on.
    Promise: on average at least ``arl`` looks between two false alarms, however groups and rates depend on each other.
    Outcome of all looks so far, right with 95 % probability whenever it is read: pass, fail, or *insufficient data*.
    """

    name = "fairness"
    trains = False

    def __init__(self, gaps: GroupGaps | None, groups: list[tuple[str, str]]) -> None:
        self.gaps = gaps
        self.groups = groups

    @classmethod
    def applies(cls, view: View) -> bool:
        """Say whether a binary model's project declares what is protected."""
        return view.spec.model.task == "binary" and bool(view.spec.model.protected)

    @classmethod
    def resume(cls, view: View, state: dict[str, Any]) -> FairnessMonitor:
        """Return the monitor as it was, or a new one."""
        if state.get("groups"):
            return cls(GroupGaps.from_state(state["gaps"]), [(column, group) for column, group in state["groups"]])
        rules, groups = view.spec.monitors, []
        for name, sketch in view.protected.features.items():
            assert isinstance(sketch, CategorySketch)
            groups += [(name, group) for group in sketch.top[: max(2, GROUPS // len(view.protected.features))]]
        if not groups:
            return cls(None, [])
        return cls(GroupGaps(len(groups), rules.fairness.ratio, rules.fairness.gap, rules.arl), groups)

    def look(self, view: View) -> Finding:
        """Compare the groups of this look's requests, and of the labels that matured."""
        compared = [*self._selections(view), *self._errors(view)]
        if self.gaps is None or not compared:
            return self._finding(view, self._missing(view), insufficient=True)
        units = 1.0 if view.spec.rollout.unit == "row" else units_of(view) / max(1, len(view.requests))
        for one in compared:
            self.gaps.compare(one.group, one.rate, one.inside, one.outside, units)
        blame = self.gaps.blame()
        alarm = self.gaps.settle()
        outcome = self._outcome()
        worst = {(one.group, one.rate): one for one in compared}
        said = [self._said(worst[group, place // 2]) for group, place, _ in blame if (group, place // 2) in worst]
        words = {"pass": "The groups are treated alike", "fail": "Groups are not treated alike"}.get(
            outcome, "There are too few rows yet to say that the groups are treated alike"
        )
        if alarm:
            words = "Groups are no longer treated alike"
        return self._finding(
            view,
            f"{words}: {said[0]}." if said else f"{words}.",
            alarm=alarm,
            calm=not alarm and not any(self._apart(view, one) for one in compared),
            outcome="fail" if alarm else outcome,
            blame=[(self._name(group, CRITERIA[place]), round(share, 4)) for group, place, share in blame[:5]],
            severity={
                self._name(one.group, RATES[one.rate]): round(abs(float(one.inside.mean() - one.outside.mean())), 4)
                for one in compared
            },
        )

    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
        return {"groups": self.groups, "gaps": None if self.gaps is None else self.gaps.to_state()}

    def _missing(self, view: View) -> str:
        """Return why nothing can be said."""
        if not self.groups:
            return f"The requests do not bring what is protected: {', '.join(view.spec.model.protected)}."
        if len(view.requests) >= LEAST:
            return "No two groups have rows to compare."
        words = f"{len(view.requests)} requests and {len(view.matured)} matured labels say nothing"
        return f"{words}; {LEAST} are asked for."

    def _selections(self, view: View) -> Iterator[Compared]:
        if len(view.requests) < LEAST:
            return
        answers = view.requests.filter(pl.col("_output").is_not_null())
        selected = _selected(answers["_output"], view)
        for group, inside, outside in self._members(answers):
            yield Compared(group, SELECTED, selected[inside], selected[outside])

    def _errors(self, view: View) -> Iterator[Compared]:
        rows = view.matured
        if len(rows) < LEAST:
            return
        selected, labels = _selected(rows["output"], view), encode(rows["label"].to_list(), view.classes)
        for group, inside, outside in self._members(rows):
            for rate, label in ((FOUND, 1.0), (FALSE, 0.0)):
                mine, theirs = selected[inside & (labels == label)], selected[outside & (labels == label)]
                if len(mine) and len(theirs):
                    yield Compared(group, rate, mine, theirs)

    def _members(self, frame: pl.DataFrame) -> Iterator[tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Yield of each group which rows are in it, and which are known to be in another."""
        for column in dict.fromkeys(column for column, _ in self.groups):
            values = columns_of(frame, [column])[column].tolist()
            texts = {value: group_of(value) for value in set(values)}
            found = np.asarray([texts[value] for value in values], dtype=object)
            known = np.asarray([one is not None for one in found], dtype=bool)
            for number, (name, group) in enumerate(self.groups):
                inside = found == group
                if name == column and inside.any() and (known & ~inside).any():
                    yield number, inside, known & ~inside

    def _outcome(self) -> Outcome:
        assert self.gaps is not None
        found = {self.gaps.outcome(group, rate) for group in range(len(self.groups)) for rate in RATES}
        return "fail" if "fail" in found else "pass" if found == {"pass"} else "insufficient data"

    def _apart(self, view: View, one: Compared) -> bool:
        """Say whether this look by itself is further from fair than chance makes it."""
        rules = view.spec.monitors.fairness
        a, b = float(one.inside.mean()), float(one.outside.mean())
        noise = [(rate * (1 - rate) + 1 / (4 * n)) / n for rate, n in ((a, len(one.inside)), (b, len(one.outside)))]
        low, high = min(a, b), max(a, b)
        excess = rules.ratio * high - low if one.rate == SELECTED else high - low - rules.gap
        return excess > 2.5 * math.sqrt(sum(noise))

    def _said(self, one: Compared) -> str:
        column, group = self.groups[one.group]
        rates = f"{one.inside.mean():.1%} of {len(one.inside)}, the others' {one.outside.mean():.1%}"
        return f"the {RATES[one.rate]} of {column} {group} is {rates}"

    def _name(self, group: int, words: str) -> str:
        return f"{' '.join(self.groups[group])}: {words}"

    def _finding(self, view: View, why: str, **fields: Any) -> Finding:
        statistic = 0.0 if self.gaps is None else float(self.gaps.statistic)
        known = {"alarm": False, "calm": True, "statistic": statistic, "promise": view.spec.monitors.arl}
        return Finding(**{**known, **fields}, why=why, trains=self.trains)


def _selected(outputs: pl.Series, view: View) -> FloatArray:
    said = outputs.list.first().cast(pl.Float64).to_numpy()
    return np.asarray(said >= view.spec.monitors.fairness.threshold, dtype=np.float64)
