"""Who of those that ask most probes? The bets of `Crowding`, once for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from orrery.stats.anomaly import AnomalyScore, Columns
from orrery.stats.checks import IntArray
from orrery.stats.neighbours import BLOCK, Crowding, Pattern, Usual

MOST = 8
"""Callers that are looked at by themselves: those with the most rows."""
LEAST = 20
"""Rows of a caller in one look below which they say nothing."""
ONE_KIND = 0.2
"""Share of a caller's rows that may crowd, or be far, beyond what is usual of all: many ask about one kind of thing."""


class Caller(msgspec.Struct, frozen=True):
    """What one caller did in a look.

    Parameters
    ----------
    name, rows : who, and how many of the look's rows.
    pattern : what the newest of them are like; its rows are numbers within the look.
    calm : whether this look by itself is within what is usual, and chance.
    """

    name: str
    rows: int
    pattern: Pattern
    calm: bool


class Callers:
    """Bets for each of the callers who ask most that they probe.

    A caller's newest rows of a look, filled up with others' to a block, are one unit: which share of them is very near
    to, or very far from, the nearest row of that block. Null: of each caller these shares are in expectation at most
    what is usual plus `ONE_KIND`. Eight places share the promise, whoever has them: who loses a place begins anew.

    Parameters
    ----------
    score, usual
        As of `Crowding`.
    arl
        Looks between two false alarms of all callers together, on average at least.
    """

    def __init__(self, score: AnomalyScore, usual: Usual, arl: float = 1000.0) -> None:
        self.score, self.usual, self.arl = score, usual, float(arl)
        self.places: dict[str, Crowding] = {}
        self.statistic = 0.0
        """Mean over the eight places at the last look; at an alarm it is the promised run length, or more."""

    def update(self, columns: Columns, names: Sequence[str | None]) -> list[Caller]:
        """Look at rows in the order in which they came, and at who sent each; returns what each caller did.

        The first alarms, if any does.
        """
        asked = self._asked(names)
        found = []
        for name, rows in asked.items():
            block, mine = _filled(rows, len(names))
            part = {column: values[block] for column, values in columns.items()}
            if (seen := self.places[name].update(part, among=mine)) is not None:
                calm = self.places[name].usually(seen, int(mine.sum()))
                found.append(Caller(name, len(rows), msgspec.structs.replace(seen, rows=block[seen.rows]), calm))
        self.statistic = sum(one.statistic for one in self.places.values()) / MOST
        for one in found:
            if one.pattern.alarm:
                del self.places[one.name]  # it begins anew
        return sorted(found, key=lambda one: (not one.pattern.alarm, -max(one.pattern.shares.values())))

    def _asked(self, names: Sequence[str | None]) -> dict[str, IntArray]:
        """Give places to those who ask most; return the rows of each who has enough of them."""
        counts = Counter(name for name in names if name is not None)
        ranked = sorted((-count, name) for name, count in counts.items() if count >= LEAST)
        present = [name for _, name in ranked[:MOST]]
        held = [*present, *(name for name in self.places if name not in present)][:MOST]
        self.places = {
            name: self.places.get(name) or Crowding(self.score, self.usual, tolerance=ONE_KIND, arl=MOST * self.arl)
            for name in held
        }
        of = np.array(names, dtype=object)
        return {name: np.flatnonzero(of == name) for name in present}

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, without the reference, as JSON-able values."""
        return {"arl": self.arl, "places": {name: one.to_state() for name, one in self.places.items()}}

    @classmethod
    def from_state(cls, state: dict[str, Any], score: AnomalyScore, usual: Usual) -> Callers:
        """Go on where `to_state` stopped, with the same reference."""
        callers = cls(score, usual, state["arl"])
        callers.places = {name: Crowding.from_state(one, score, usual) for name, one in state["places"].items()}
        return callers


def _filled(rows: IntArray, total: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Return a block with the newest of these rows, the others spread over all; and which of it are these."""
    mine = rows[-BLOCK:]
    others = np.setdiff1d(np.arange(total), rows)
    room = min(BLOCK - len(mine), len(others))
    spread = others[np.linspace(0, len(others) - 1, room).astype(np.int64)] if room else others[:0]
    return np.concatenate([spread, mine]), np.arange(room + len(mine)) >= room
