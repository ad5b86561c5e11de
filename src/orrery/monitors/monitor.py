"""What a monitor is: it takes in one look at production after the other and says when something changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import msgspec
import polars as pl

from orrery.spec import Spec
from orrery.stats import TableSketch
from orrery.stats.anomaly import AnomalyScore
from orrery.stats.estimate import Untouched
from orrery.stats.joint import JointReference
from orrery.stats.measure import NONE, Own
from orrery.stats.neighbours import Usual

NOTHING = TableSketch({})


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a monitor is shown at one look.

    Parameters
    ----------
    spec : the policy in force.
    requests : the champion's requests since the last look, with their raw columns.
    matured : the champion's predictions whose labels became final since: ``output`` (list), ``label``, ``at``,
        and the protected columns.
    classes : of the model, in the order of its outputs; empty for regression.
    reference : sketch of the newest rows that the champion learned from.
    segments : the same, of the declared segments as groups.
    protected : and of the protected columns.
    outputs : sketch of the champion's answers on untouched rows.
    joint : of the newest training rows, how their features go together; None where that cannot be told.
    score : of the champion: how strange a request is; None where it learned none.
    usual : how near to each other its newest training rows are; None where that cannot be told.
    untouched : labelled rows that it has not learned from, with its answers; None where there are none.
    expected_loss : the champion's mean primary loss on untouched rows, an upper bound of it.
    scale : largest error that counts, for regressions.
    own : losses of the project's own.
    """

    spec: Spec
    requests: pl.DataFrame
    matured: pl.DataFrame
    classes: list[Any]
    reference: TableSketch
    expected_loss: float
    scale: float = 1.0
    own: Own = NONE
    segments: TableSketch = NOTHING
    protected: TableSketch = NOTHING
    outputs: TableSketch = NOTHING
    joint: JointReference | None = None
    score: AnomalyScore | None = None
    usual: Usual | None = None
    untouched: Untouched | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a monitor found at one look.

    Parameters
    ----------
    alarm : whether its promise lets it say that something changed.
    calm : whether this look by itself is within the tolerance.
    statistic : evidence now; it alarms when this reaches the promised run length.
    promise : mean number of looks between two false alarms, at least.
    why : a sentence with the numbers.
    reason : which trigger it pulls: drift or decay.
    answer : the kind of change that is tried first.
    trains : whether the alarm pulls its trigger although the project file does not name the monitor there.
    insufficient : whether there was too little to say anything.
    outcome : of all looks so far, where a monitor says more than "no alarm": pass, fail or insufficient data.
    blame : features and their share of the evidence.
    severity : of each feature, for the eye; never the alarm.
    excess : by how much the mean loss of this look is above what was promised, where a monitor looks at losses; else
        None.
    losses : how many losses that is the mean of.
    """

    alarm: bool
    calm: bool
    statistic: float
    promise: int
    why: str
    reason: str = "drift"
    answer: str = "refresh"
    trains: bool = True
    insufficient: bool = False
    outcome: str = ""
    blame: list[tuple[str, float]] = []
    severity: dict[str, float] = {}
    excess: float | None = None
    losses: int = 0


class Monitor(ABC):
    """One monitor of one model in one environment.

    It is made anew when the champion changes. Its state is a few kilobytes of JSON: ``Monitor.resume(view, state)``
    continues it in another process, and yields the same findings.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = True
    """Whether its alarm pulls a trigger by itself. Else it opens an issue, unless ``[triggers] monitors`` names it."""

    @classmethod
    @abstractmethod
    def applies(cls, view: View) -> bool:
        """Say whether there is anything to watch for a model of this kind."""

    @classmethod
    @abstractmethod
    def resume(cls, view: View, state: dict[str, Any]) -> Monitor:
        """Return the monitor as it was, or a new one if the state is empty."""

    @abstractmethod
    def look(self, view: View) -> Finding:
        """Take in one look."""

    def too_little(
        self, view: View, statistic: float, why: str, *, reason: str = "drift", answer: str = "refresh"
    ) -> Finding:
        """Return the finding of a look that had too little to say anything; the evidence stays what it was."""
        return Finding(
            alarm=False,
            calm=True,
            statistic=statistic,
            promise=view.spec.monitors.arl,
            why=why,
            reason=reason,
            answer=answer,
            trains=self.trains,
            insufficient=True,
        )

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Return what :meth:`resume` needs."""
