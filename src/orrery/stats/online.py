"""Error control over challengers that come one after the other: e-LOND."""

from __future__ import annotations

from orrery.errors import NotUnderstood
from orrery.stats.checks import probability


def level(alpha: float, trial: int, proven: int) -> float:
    """Give the level of the next test in a sequence: it is won at evidence ``1 / level`` or more.

    Each challenger has a small chance to be proven better by luck, so that whoever tries twenty of them finds a lucky
    one. With these levels at most the share `alpha` of all that is proven is so by luck, on average, whenever one
    stops, and however the tests depend on each other: they are e-processes.

    Parameters
    ----------
    alpha
        Share of false proofs among all proofs (false discovery rate).
    trial
        Number of this test in the sequence, from 1.
    proven
        How many of the tests before it were won.

    Notes
    -----
    ``alpha * (proven + 1) * g(trial)``, where ``g(t) = 1 / (t (t + 1))`` sums to 1.

    References
    ----------
    Xu, Ramdas 2024, "Online multiple testing with e-values" (e-LOND).

    Examples
    --------
    >>> [round(1 / level(0.05, trial, 0)) for trial in (1, 2, 3)]
    [40, 120, 240]
    >>> round(1 / level(0.05, 3, 2))
    80
    """
    if trial < 1 or not 0 <= proven < trial:
        raise NotUnderstood(f"Of {trial - 1} tests before this one, {proven} cannot have been won.")
    return probability(alpha, "alpha") * (proven + 1) / (trial * (trial + 1))
