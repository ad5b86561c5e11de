"""The decision between champion and challenger, valid however often it is asked for."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orrery.errors import NotUnderstood
from orrery.stats.checks import bounded, probability
from orrery.stats.confidence import MeanSequence
from orrery.stats.eprocess import BettingE, McNemarE
from orrery.stats.intervals import Interval

Kind = Literal["loss", "zero_one"]
Decision = Literal["promote", "abort", "undecided"]


class PairedTest:
    """Champion against challenger on the same units, with two opposite bets.

    The *forward* bet is against "the challenger is worse by the margin or more" (``E[d] <= -margin``); the *mirror* is
    against the opposite (``E[d] >= -margin``), so that its evidence says the champion is better by more than the
    margin. At most one of the two nulls is false, and both bets cannot be ahead at the same time. Each is wrong with
    probability at most its alpha, over all looks together.

    Parameters
    ----------
    kind
        ``"zero_one"``: each unit is one row and ``d`` is -1, 0 or 1 (McNemar's e-process; with a margin, betting).
        ``"loss"``: ``d`` is a bounded difference of losses (betting).
    margin
        Tolerated loss in the unit of ``d``; 0 asks for superiority.
    alpha
        Risk of promoting a challenger that is worse.
    abort_alpha
        Risk of aborting one that is not; None is `alpha`.
    bound
        Largest possible ``abs(d)``: 1 for 0/1 loss and Brier score, ``-log(clip)`` for `log_loss`.

    Notes
    -----
    Start a new one when the champion changes: old evidence is about another champion.

    Examples
    --------
    >>> test = PairedTest("zero_one", alpha=0.05)
    >>> test.update([1] * 60 + [-1] * 20 + [0] * 920)
    >>> test.decision, test.n, round(test.interval().estimate, 3)
    ('promote', 1000, 0.04)
    """

    def __init__(
        self,
        kind: Kind = "loss",
        margin: float = 0.0,
        alpha: float = 0.05,
        bound: float = 1.0,
        abort_alpha: float | None = None,
    ) -> None:
        if kind not in ("loss", "zero_one"):
            raise NotUnderstood(f"There is no paired test of kind {kind!r}.", todo='Choose "loss" or "zero_one".')
        if kind == "zero_one" and bound != 1.0:
            raise NotUnderstood(
                "Differences of 0/1 losses have the bound 1.", todo='Leave out bound, or choose "loss".'
            )
        self.kind: Kind = kind
        self.margin, self.alpha, self.bound = float(margin), probability(alpha, "alpha"), float(bound)
        self.abort_alpha = self.alpha if abort_alpha is None else probability(abort_alpha, "abort_alpha")
        self._effect = MeanSequence(-bound, bound)
        self._forward: McNemarE | BettingE
        self._mirror: McNemarE | BettingE
        if kind == "zero_one" and margin == 0:
            self._forward, self._mirror = McNemarE(), McNemarE()
        else:
            self._forward = BettingE(margin, low=-bound, high=bound)
            self._mirror = BettingE(-margin, low=-bound, high=bound)

    def update(self, d: npt.ArrayLike) -> None:
        """Add units: for each the loss of the champion minus that of the challenger (above 0: challenger better)."""
        values = bounded(d, -self.bound, self.bound, "the differences")
        if self.kind == "zero_one" and not np.isin(values, (-1.0, 0.0, 1.0)).all():
            raise NotUnderstood(
                "A difference of 0/1 losses is not -1, 0 or 1.",
                safe="Nothing was counted.",
                todo='Give one difference for each row, or choose kind "loss" for means of blocks.',
            )
        self._effect.update(values)
        for process, signed in ((self._forward, values), (self._mirror, -values)):
            if isinstance(process, McNemarE):
                process.update(int((signed > 0).sum()), int((signed < 0).sum()))
            else:
                process.update(signed)

    @property
    def n(self) -> int:
        """Number of units seen."""
        return self._effect.n

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence for the challenger."""
        return self._forward.log_e

    @property
    def log_counter_evidence(self) -> float:
        """Natural logarithm of the evidence for the champion."""
        return self._mirror.log_e

    @property
    def evidence(self) -> float:
        """Evidence for the challenger; promote from ``1 / alpha`` on."""
        return self._forward.e

    @property
    def counter_evidence(self) -> float:
        """Evidence for the champion; abort from ``1 / abort_alpha`` on."""
        return self._mirror.e

    @property
    def decision(self) -> Decision:
        """What the evidence allows now."""
        if self.log_evidence >= -math.log(self.alpha):
            return "promote"
        return "abort" if self.log_counter_evidence >= -math.log(self.abort_alpha) else "undecided"

    def interval(self, alpha: float | None = None) -> Interval:
        """Give the mean of ``d`` with a confidence sequence, by default at the test's own alpha."""
        return self._effect.interval(self.alpha if alpha is None else alpha)

    def to_state(self) -> dict[str, Any]:
        """Give everything needed to go on later, as JSON-able values."""
        return {
            "kind": self.kind,
            "margin": self.margin,
            "alpha": self.alpha,
            "bound": self.bound,
            "abort_alpha": self.abort_alpha,
            "effect": self._effect.to_state(),
            "forward": self._forward.to_state(),
            "mirror": self._mirror.to_state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PairedTest:
        """Go on where `to_state` stopped."""
        test = cls(state["kind"], state["margin"], state["alpha"], state["bound"], state.get("abort_alpha"))
        test._effect = MeanSequence.from_state(state["effect"])
        test._forward = type(test._forward).from_state(state["forward"])
        test._mirror = type(test._mirror).from_state(state["mirror"])
        return test
