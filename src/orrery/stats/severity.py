"""How far two distributions are apart. Shown to people, never the alarm: none of these bounds false alarms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orrery.stats.checks import FloatArray


def _shares(counts: npt.ArrayLike, smoothing: npt.ArrayLike) -> FloatArray:
    array = np.asarray(counts, dtype=np.float64) + np.asarray(smoothing)
    return np.asarray(array / np.maximum(array.sum(axis=-1, keepdims=True), 1e-300))


def psi(reference: npt.ArrayLike, current: npt.ArrayLike, real: npt.ArrayLike = True) -> FloatArray:
    """Population stability index of counts over the same bins (last axis), half a row added to each bin.

    Where columns have different numbers of bins, `real` says which are bins, and which fill up the table.

    By custom: below 0.1 stable, 0.1 to 0.2 moved, above 0.2 changed. In small samples chance alone gives about
    ``bins * (1 / rows + 1 / reference rows)``.

    Examples
    --------
    >>> round(float(psi([500, 500], [700, 300])), 3)
    0.169
    """
    half = np.where(real, 0.5, 0.0)
    p, q = _shares(reference, half), _shares(current, half)
    return np.asarray(((q - p) * np.log(np.where(real, q, 1.0) / np.where(real, p, 1.0))).sum(axis=-1))


def jensen_shannon(reference: npt.ArrayLike, current: npt.ArrayLike) -> FloatArray:
    """Jensen-Shannon distance (square root of the divergence in bits) of counts (last axis): 0 same, 1 disjoint.

    References
    ----------
    Endres, Schindelin 2003, "A new metric for probability distributions".

    Examples
    --------
    >>> float(jensen_shannon([10, 0], [0, 10])), float(jensen_shannon([5, 5], [1, 1]))
    (1.0, 0.0)
    """
    p, q = _shares(reference, 0.0), _shares(current, 0.0)
    middle = np.where(p + q > 0, (p + q) / 2, 1.0)

    def bits(x: FloatArray) -> FloatArray:
        return np.asarray((x * np.log2(np.where(x > 0, x / middle, 1.0))).sum(axis=-1))

    return np.sqrt(np.clip((bits(p) + bits(q)) / 2, 0.0, 1.0))


def ks(reference: npt.ArrayLike, current: npt.ArrayLike) -> FloatArray:
    """Kolmogorov-Smirnov distance of counts over ordered cells (last axis): largest gap of the cumulative shares.

    Examples
    --------
    >>> float(ks([5, 5, 0], [0, 5, 5]))
    0.5
    """
    gap = np.cumsum(_shares(reference, 0.0) - _shares(current, 0.0), axis=-1)
    return np.asarray(np.abs(gap).max(axis=-1, initial=0.0))
