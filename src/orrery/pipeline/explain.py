"""What each column contributed to a prediction.

Contributions of a row and the base add up to the model's raw output, and a link makes the answer of that: nothing (the
scale is ``probability`` or ``value``), the logistic function (``log-odds``), softmax (``scores``), or the exponential
(``log of the value``). Which it is is not looked up but found: a library's contributions are used only if, on the rows
of this very request, one of these links brings their sum back to what the model answers. Otherwise, and for any model
that no library explains, Shapley values are computed by asking the model itself.

Contributions are of the columns that the model's step sees: with feature steps that run for requests, the features;
without, the columns of the request. Columns that a scikit-learn pipeline makes inside of the model (one-hot, scaled,
filled) are added up to those that they were made of.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.errors import NotAllowed, NotUnderstood
from orrery.pipeline.attribution import WAYS, Shares
from orrery.pipeline.manifest import FloatArray, repaired
from orrery.pipeline.origins import origins
from orrery.pipeline.predictor import Predictor, outputs
from orrery.pipeline.rows import Rows
from orrery.pipeline.shapley import Table, shapley

MAX_ROWS = 200
"""Rows that are explained at once, at most."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why some rows were answered as they were."""

    columns: list[str]
    """What the contributions are of."""
    base: list[float]
    """Raw output before any column has its say: one, or for a multiclass task one for each class."""
    contributions: list[list[list[float]]]
    """For each row and output, one for each column."""
    method: str
    """How they were computed."""
    scale: str
    """What they add up to: ``log-odds``, ``scores``, ``probability``, ``value`` or ``log of the value``."""
    error: float | None
    """Largest standard error of a contribution; None where they are exact."""
    asked: int
    """Rows that the model was asked about for each explained one; 0 where its structure says it all."""
    cost: float
    """Seconds that it took."""
    note: str = ""
    """Why a quicker way was not taken."""


class Explainer:
    """Explains the predictions of one version.

    Parameters
    ----------
    predictor
        The version.
    sample
        Rows of its training (``sample.parquet`` of the artifact): what "without this column" means.
    """

    def __init__(self, predictor: Predictor, sample: pl.DataFrame) -> None:
        self._predictor, self._manifest = predictor, predictor.manifest
        self._background = predictor.features(sample)

    def explain(self, rows: Rows) -> Explanation:
        """Explain rows that fit already.

        Raises
        ------
        NotUnderstood
            If there are none or more than :data:`MAX_ROWS`, or what the model sees is no table.
        NotAllowed
            If a package that it takes is not installed.
        ProjectFailed
            As :meth:`Predictor.predict`.
        """
        count = rows.frame.height
        if not 0 < count <= MAX_ROWS:
            raise NotUnderstood(
                f"{count} rows cannot be explained at once.", todo=f"Send 1 to {MAX_ROWS} rows; explaining takes time."
            )
        began = time.perf_counter()
        predictor, manifest = self._predictor, self._manifest
        given = predictor.features_of(rows)
        table = Table(given, self._background)
        said = self._answer(given, count)
        note = ""
        try:
            found = self._of_structure(given, said, table.names)
        except NotAllowed:
            raise
        except Exception as error:  # a library that cannot explain its own model is no reason not to
            found, note = None, f"{type(error).__name__}: {error}"[:200]
        if found is not None:
            (base, shares), method, scale = found
            if manifest.repair is not None and scale == "log-odds":
                slope, intercept = manifest.repair.slope, manifest.repair.intercept
                base, shares = slope * base + intercept, slope * shares
            elif manifest.repair is not None:
                scale = f"{scale} before the repair"
            unsure, asked = None, 0
        else:
            base, shares, unsure, asked = shapley(self._asked, table)
            scale = "value" if manifest.task == "regression" else "probability"
            method = "Shapley values by asking, exact" if unsure is None else "Shapley values by asking, sampled"
        return Explanation(
            columns=table.names,
            base=base.tolist(),
            contributions=shares.tolist(),
            method=method,
            scale=scale,
            error=unsure,
            asked=asked,
            cost=time.perf_counter() - began,
            note=note,
        )

    def _answer(self, given: Any, count: int) -> FloatArray:
        with self._predictor.active():
            return outputs(self._predictor.model, given, count, self._manifest, self._predictor.root)

    def _asked(self, given: Any, count: int) -> FloatArray:
        return repaired(self._answer(given, count), self._manifest.repair)

    def _of_structure(self, given: Any, said: FloatArray, names: list[str]) -> tuple[Shares, str, str] | None:
        """Return contributions as the model's library computes them, if they are proven to add up to its answers."""
        with self._predictor.active():
            model, rows, background = self._predictor.model, given, self._background
            places = list(range(len(names)))
            if type(model).__module__ == "sklearn.pipeline" and len(model.steps) > 1:
                before, model = model[:-1], model.steps[-1][1]
                rows, background = before.transform(rows), before.transform(background)
                found = origins(before, len(names), rows.shape[1])
                if found is None:
                    return None
                places = found
            for method, way in WAYS:
                if (shares := way(model, rows, background)) is not None:
                    aligned = self._aligned(shares, model)
                    if aligned is None or aligned[1].shape[2] != len(places):
                        return None
                    scale = scale_of(aligned[0] + aligned[1].sum(axis=2), said, self._manifest.task)
                    return (_summed(aligned, places, len(names)), method, scale) if scale else None
        return None

    def _aligned(self, shares: Shares, model: Any) -> Shares | None:
        """Return one output for a binary task or a regression, else one for each class in the manifest's order."""
        base, values = shares
        if self._manifest.task != "multiclass":
            return (base[-1:], values[:, -1:]) if len(base) <= 2 else None
        classes = self._manifest.classes
        own = [value.item() if isinstance(value, np.generic) else value for value in getattr(model, "classes_", ())]
        if len(base) != len(classes):
            return None
        if set(own) != set(classes):
            return base, values  # numbers of classes, in their order, as the model was taught them
        order = [own.index(value) for value in classes]
        return base[order], values[:, order]


def scale_of(raw: FloatArray, said: FloatArray, task: str) -> str:
    """Return the scale on which ``raw`` is what the model said; empty if it is not.

    Examples
    --------
    >>> scale_of(np.array([[0.0], [2.0]]), np.array([[0.5], [0.8808]]), "binary")
    'log-odds'
    >>> scale_of(np.array([[0.0], [2.0]]), np.array([[0.5], [0.7]]), "binary")
    ''
    """
    with np.errstate(over="ignore"):
        links: dict[str, FloatArray] = {"value" if task == "regression" else "probability": raw}
        if task == "regression":
            links["log of the value"] = np.exp(raw)
        elif task == "binary":
            links["log-odds"] = 1 / (1 + np.exp(-raw))
        else:
            powers = np.exp(raw - raw.max(axis=1, keepdims=True))
            links["scores"] = powers / powers.sum(axis=1, keepdims=True)
            each = 1 / (1 + np.exp(-raw))
            links["log-odds"] = each / each.sum(axis=1, keepdims=True)
    size = float(np.abs(said).max()) or 1.0
    for scale, answer in links.items():
        if answer.shape == said.shape and np.allclose(answer, said, rtol=1e-4, atol=1e-4 * size):
            return scale
    return ""


def _summed(shares: Shares, places: list[int], width: int) -> Shares:
    """Add up the contributions of encoded columns to those of the columns that they were made of."""
    base, values = shares
    found = np.zeros((*values.shape[:2], width))
    for at, place in enumerate(places):
        found[:, :, place] += values[:, :, at]
    return base, found
