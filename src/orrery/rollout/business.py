"""Business metrics as guardrails: what came of answers, as a loss; and days after a promotion against days before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, timedelta

import msgspec
import numpy as np
import numpy.typing as npt

from orrery.spec import Business
from orrery.stats import PairedTest, paired_interval
from orrery.stats.checks import FloatArray
from orrery.stats.eprocess import BettingE

BEFORE = timedelta(days=28)
"""Days before a promotion that those after it are compared with: whole weeks."""
LEAST = 7
"""Days before a promotion that are asked for."""


class DayFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Days after a promotion beside days before.

    Parameters
    ----------
    before, after : mean values.
    days : after the promotion, with a value.
    evidence : that the metric is worse than before by more than the margin.
    why : a sentence with the numbers.
    """

    before: float
    after: float
    days: int
    evidence: float
    why: str


def largest_loss(rule: Business) -> float:
    """Return the loss of the worst value that counts."""
    return rule.high - rule.low


def losses_of(rule: Business, values: npt.ArrayLike) -> FloatArray:
    """Return values as losses, from 0 for the best to :func:`largest_loss`; what is beyond the bounds counts as they.

    Examples
    --------
    >>> losses_of(Business(low=0.0, high=10.0), [8.0, 25.0, 0.0]).tolist()
    [2.0, 0.0, 10.0]
    """
    kept = np.clip(np.asarray(values, dtype=np.float64), rule.low, rule.high)
    return np.asarray(rule.high - kept if rule.better == "higher" else kept - rule.low)


def day_after_day(name: str, rule: Business, values: Mapping[date, float], promoted: date) -> DayFinding | None:
    """Compare the days after a promotion with those before; nothing where there are too few.

    Null: *whatever came before, the mean to expect of the next day is not worse than the mean of the 28 days before the
    promotion (the far end of its 95 % interval, days taken as independent) by more than the margin*. It is about the
    days, not about the version: a season, a campaign or a feed that broke makes it as false as a bad model does. Where
    it holds, evidence of ``1 / alpha`` is ever reached with probability at most alpha. The day of the promotion belongs
    to neither side.

    References
    ----------
    Waudby-Smith, Ramdas 2024, "Estimating means of bounded random variables by betting".
    """
    earlier = [value for day, value in sorted(values.items()) if promoted - BEFORE <= day < promoted]
    later = [value for day, value in sorted(values.items()) if day > promoted]
    if len(earlier) < LEAST or not later:
        return None
    known, bound = losses_of(rule, earlier), largest_loss(rule)
    limit = max(min(paired_interval(known).high, bound) + rule.margin, 0.001 * bound)
    before, after = float(np.mean(earlier)), float(np.mean(later))
    # A guard lasts days, not years: few bets, the largest of which is large, so that two weeks can be enough.
    bet = BettingE(-limit / bound, n_bets=3, low=0.0, high=1.0) if limit < bound else None
    if bet is not None:
        bet.update(losses_of(rule, later) / bound)
    evidence = 1.0 if bet is None else min(bet.e, 1e12)
    why = (
        f"{name} {after:.4g} a day on {len(later)} days since the promotion, {before:.4g} on {len(earlier)} days "
        f"before; evidence {evidence:.3g}"
    )
    return DayFinding(before=before, after=after, days=len(later), evidence=evidence, why=why)


def by(rules: Mapping[str, Business], kind: str) -> dict[str, Business]:
    """Return the metrics that come by ``unit`` or by ``day``."""
    return {name: rule for name, rule in rules.items() if rule.by == kind}


def worse_in_words(name: str, test: PairedTest, against: float) -> str:
    """Return what a guardrail showed that is proven worse; ``against`` is the logarithm of all evidence for that."""
    interval = test.interval()
    return (
        f"{name} is proven worse by {-interval.estimate:.4g} [{-interval.high:.4g}, {-interval.low:.4g}] "
        f"(margin {test.margin:g}), evidence {math.exp(min(against, math.log(1e12))):.3g}"
    )
