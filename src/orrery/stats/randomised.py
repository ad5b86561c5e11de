"""Two versions compared on units that were drawn by lot for one or the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orrery.stats.checks import FloatArray, require


def randomised_differences(
    losses: npt.ArrayLike, in_arm: npt.ArrayLike, share: float, centre: float = 0.0
) -> FloatArray:
    """Return for each unit a number whose expectation is *its loss under the champion minus that under the arm*.

    Only one of the two losses is ever seen. Weighting it by the inverse of the probability of the lot that made it
    visible leaves no bias, whatever the units are like and however they depend on each other: ``(l - c) / (1 - p)``
    where the champion answered, ``-(l - c) / p`` where the arm did. So an e-process for bounded differences, such as
    :class:`~orrery.stats.paired.PairedTest` with the bound ``largest loss / min(p, 1 - p)``, is valid at every look.
    Each unit may enter once: who comes again was not drawn again.

    Parameters
    ----------
    losses : of the units, by whoever answered them, shape (units,); at least 0.
    in_arm : whether the arm answered.
    share : probability p with which a unit is drawn for the arm.
    centre : what is subtracted from every loss: about the mean loss makes the numbers vary least. It must be known
        before the units are; any value is valid.

    References
    ----------
    Horvitz, Thompson 1952, "A generalization of sampling without replacement from a finite universe"; Waudby-Smith,
    Wu, Ramdas, Karampatziakis, Mineiro 2024, "Anytime-valid off-policy inference for contextual bandits".

    Examples
    --------
    >>> randomised_differences([0.3, 0.1], [False, True], share=0.5, centre=0.2).round(6).tolist()
    [0.2, 0.2]
    """
    require(0 < share < 1, f"A share of {share:g} leaves nothing to compare.", "Give a share between 0 and 1.")
    values, drawn = np.asarray(losses, dtype=np.float64) - centre, np.asarray(in_arm, dtype=bool)
    return np.where(drawn, -values / share, values / (1 - share))
