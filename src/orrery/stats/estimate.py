"""What a classifier's loss should be where labels are not known yet: from its own probabilities, calibrated."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from orrery.errors import Damaged
from orrery.stats.calibrate import apply_platt, platt
from orrery.stats.checks import FloatArray
from orrery.stats.joint import JointReference
from orrery.stats.measure import NONE, Own, row_losses
from orrery.stats.ratio import density_ratio, effective_size

LEAST_ROWS = 100  # labelled rows, in effect, below which a calibration is not believed
LEAST_OF_A_CLASS = 10
KEPT = 3000  # untouched rows, at most, spread over all
MOVED = 20  # terms by which rows are told apart: those that moved most

Calibration = tuple[tuple[float, float], ...]
"""Slope and intercept of :func:`~orrery.stats.calibrate.platt` for each output column."""


@dataclass(frozen=True)
class Untouched:
    """Labelled rows that a model has not learned from: on them its probabilities are calibrated.

    Parameters
    ----------
    outputs, labels
        As in `calibration_of`.
    encoded
        Their inputs as a `JointReference` encodes them, shape (rows, dimensions); None where they are not known.
    """

    outputs: FloatArray
    labels: FloatArray
    encoded: FloatArray | None = None

    def likeness(self, reference: JointReference, requests: FloatArray) -> FloatArray | None:
        """Give for each row how much more likely it is among requests, its mean 1; None where that cannot be told.

        Rows are told apart by the twenty terms of the reference whose mean differs most: features and products of two.

        Parameters
        ----------
        reference
            What encoded these rows, and the requests.
        requests
            Encoded, shape (requests, dimensions).
        """
        if self.encoded is None or not len(requests) or not len(self.encoded):
            return None
        then, now = reference.means(self.encoded), reference.means(requests)
        moved = np.argsort(-np.abs(now - then))[:MOVED]
        return density_ratio(reference.terms(self.encoded, moved), now[moved], len(requests))

    def to_bytes(self) -> bytes:
        """Give a NumPy archive, some hundred kilobytes."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {"outputs": self.outputs, "labels": self.labels}
        if self.encoded is not None:
            arrays["encoded"] = self.encoded.astype(np.float32)
        np.savez(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Untouched:
        """Restore what `to_bytes` gave; `Damaged` where the bytes are something else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                return cls(**{name: found[name].astype(np.float64) for name in found.files})
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise Damaged("These bytes are no untouched rows.", todo="Train the version again.") from error


def calibration_of(outputs: FloatArray, labels: FloatArray, weights: FloatArray | None = None) -> Calibration | None:
    """Fit the calibration of each class against all others.

    Parameters
    ----------
    outputs
        Probability of class 1, shape (rows, 1), or of each class, shape (rows, classes).
    labels
        Class numbers, shape (rows,).
    weights
        How like the requests of now each row is, of `Untouched.likeness`; by default all alike.

    Returns
    -------
    None where there are too few rows, or too few of a class, to believe it; weighted ones count in effect.
    """
    classes = max(outputs.shape[1], 2)
    like = np.ones(len(labels)) if weights is None else weights
    least = min(effective_size(like[labels == number]) for number in range(classes))
    if effective_size(like) < LEAST_ROWS or least < LEAST_OF_A_CLASS:
        return None
    if outputs.shape[1] == 1:
        return (platt(outputs[:, 0], labels, weights=like),)
    return tuple(platt(outputs[:, number], labels == number, weights=like) for number in range(classes))


def expected_losses(
    name: str, outputs: FloatArray, calibration: Calibration, *, cap: float = math.inf, own: Own = NONE
) -> FloatArray:
    """Give the expected loss of each row, shape (rows,), if the calibrated probabilities come true.

    Parameters
    ----------
    name
        Of a loss of one row: log_loss, brier or zero_one.
    outputs
        What the model said, in the shapes of `calibration_of`. The loss is that of these; only how often each class
        will come is read from the calibrated ones.
    calibration
        Of `calibration_of`, on labelled rows that the model has not learned from.
    cap
        Largest loss of a row.
    own
        Losses of the project.

    References
    ----------
    Confidence-based performance estimation: Guillory et al. 2021, "Predicting with confidence on unseen distributions";
    Bialek et al. 2024, "Estimating model performance under covariate shift without labels".

    Examples
    --------
    >>> said = np.array([[0.9], [0.5]])
    >>> expected_losses("brier", said, ((1.0, 0.0),)).round(2).tolist()
    [0.09, 0.25]
    >>> expected_losses("zero_one", said, ((0.5, 0.0),)).round(2).tolist()  # 9 of 10 said, 3 of 4 come true
    [0.25, 0.5]
    """
    columns = [apply_platt(outputs[:, number], *repair) for number, repair in enumerate(calibration)]
    comes = np.column_stack(columns if len(columns) > 1 else [1 - columns[0], columns[0]])
    comes = comes / comes.sum(axis=1, keepdims=True)
    labels = (np.full(len(outputs), float(k)) for k in range(comes.shape[1]))
    losses = [row_losses(name, outputs, each, cap=cap, own=own) for each in labels]
    return np.asarray((comes * np.column_stack(losses)).sum(axis=1))
