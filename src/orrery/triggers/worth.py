"""Whether a training is worth its cost, as arithmetic that somebody can follow who does not know statistics."""

from __future__ import annotations

import msgspec

AHEAD = 30
"""Days that a decay is expected to last if nothing is done: as long as those that a budget is for."""


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What a training would bring, and what it costs; both in one currency.

    Parameters
    ----------
    metric : the primary loss.
    gain, low : by how much a probe's loss was lower than the champion's on the same rows, and the lower end of its
        95 % interval: what is counted on.
    requests : answers until the next chance to train.
    error : cost of a loss of 1 in one answer.
    hours : processor hours that the training takes.
    hour : cost of one.
    currency : of the costs.
    """

    metric: str
    gain: float
    low: float
    requests: float
    error: float
    hours: float
    hour: float
    currency: str

    @property
    def brings(self) -> float:
        """What it brings at least, as far as the probe can tell."""
        return max(self.low, 0.0) * self.requests * self.error

    @property
    def costs(self) -> float:
        """What it costs."""
        return self.hours * self.hour

    @property
    def pays(self) -> bool:
        """Whether it brings more than it costs."""
        return self.brings > self.costs

    def sentence(self) -> str:
        """Say it to people.

        Examples
        --------
        >>> costs = dict(error=0.05, hours=0.01, hour=0.05, currency="EUR")
        >>> said = Worth(metric="brier", gain=0.012, low=0.006, requests=6300.0, **costs).sentence()
        >>> said.partition(": ")[2].partition(". ")[0]
        'over 6,300 answers at 0.05 EUR that is 1.89 EUR'
        >>> said.partition(". ")[2]
        'A training costs 0.0005 EUR (0.6 minutes of processor time): it pays.'
        """
        name = self.currency
        if self.low <= 0:
            sure = f"A probe lowers {self.metric} by {self.gain:.3g}, and perhaps not at all (lower end {self.low:.3g})"
            return f"{sure}: a training is not known to bring anything."
        return (
            f"A probe lowers {self.metric} by {self.gain:.3g}, at least by {self.low:.3g}: over {self.requests:,.0f} "
            f"answers at {self.error:g} {name} that is {self.brings:.3g} {name}. A training costs {self.costs:.3g} "
            f"{name} ({60 * self.hours:.2g} minutes of processor time): it {'pays' if self.pays else 'does not pay'}."
        )


class Decayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a decay goes on costing, and what a training costs; both in one currency.

    Nothing has to be tried for it: everything is known when the alarm comes.

    Parameters
    ----------
    metric : the primary loss.
    excess, losses : by how much it is above what was promised, on average over so many answers since the alarm.
    daily : answers in a day.
    error, hours, hour, currency : as of :class:`Worth`.
    """

    metric: str
    excess: float
    losses: int
    daily: float
    error: float
    hours: float
    hour: float
    currency: str

    @property
    def loses(self) -> float:
        """What it costs in :data:`AHEAD` days, if it goes on like this and a training would end it."""
        return max(self.excess, 0.0) * self.daily * AHEAD * self.error

    @property
    def costs(self) -> float:
        """What a training costs."""
        return self.hours * self.hour

    @property
    def pays(self) -> bool:
        """Whether to go on like this is dearer."""
        return self.loses > self.costs

    def sentence(self) -> str:
        """Say it to people.

        Examples
        --------
        >>> costs = dict(error=0.01, hours=4.0, hour=0.05, currency="EUR")
        >>> print(Decayed(metric="brier", excess=0.02, losses=930, daily=900.0, **costs).sentence())
        Since the alarm brier is above what was promised by 0.02 (930 answers): over 27,000 answers in 30 days at 0.01 \
EUR that is 5.4 EUR. A training costs 0.2 EUR (240 minutes of processor time): it pays.
        """
        name = self.currency
        return (
            f"Since the alarm {self.metric} is above what was promised by {self.excess:.3g} ({self.losses:,} answers): "
            f"over {self.daily * AHEAD:,.0f} answers in {AHEAD} days at {self.error:g} {name} that is {self.loses:.3g} "
            f"{name}. A training costs {self.costs:.3g} {name} ({60 * self.hours:.3g} minutes of processor time): it "
            f"{'pays' if self.pays else 'does not pay'}."
        )
