"""Is what was trained fit to be a version: its losses on untouched rows, and the same features when serving."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from orrery.errors import OrreryError
from orrery.pipeline.manifest import FloatArray, Manifest
from orrery.pipeline.own_loss import own_losses
from orrery.pipeline.predictor import Predictor, label_codes
from orrery.spec import Spec

_CHECKED_ROWS = 20
_EQUAL = 1e-9
"""Relative difference of two computations of the same feature that is rounding."""


def losses(manifest: Manifest, output: FloatArray, target: pl.Series) -> dict[str, float]:
    """Mean of each loss of the task.

    Parameters
    ----------
    output
        As :meth:`Predictor.predict` gives it.
    target
        The labels of the same rows, none null.
    """
    from orrery.stats import losses as of_row  # brings SciPy, which a failed training need not wait for

    labels = label_codes(manifest, target)
    if manifest.task == "regression":
        rows = {
            "absolute_error": of_row.absolute_error(output[:, 0], labels),
            "squared_error": of_row.squared_error(output[:, 0], labels),
        }
    else:
        shares = output[:, 0] if manifest.task == "binary" else output / output.sum(axis=1, keepdims=True)
        best = (output[:, 0] >= 0.5).astype(float) if manifest.task == "binary" else output.argmax(axis=1).astype(float)
        rows = {
            "log_loss": of_row.log_loss(shares, labels),
            "brier": of_row.brier(shares, labels),
            "zero_one": of_row.zero_one(best, labels),
        }
    return {name: float(values.mean()) for name, values in rows.items()}


def own_means(predictor: Predictor, spec: Spec, output: FloatArray, target: pl.Series) -> dict[str, float]:
    """Mean of each loss that the project itself defines; arguments as of :func:`losses`."""
    if not spec.losses:
        return {}
    asked, labels = (predictor.checkout, predictor.manifest.classes), label_codes(predictor.manifest, target)
    return {
        name: float(own_losses(*asked, one.function, one.bound, output, labels).mean())
        for name, one in spec.losses.items()
    }


def row_wise(predictor: Predictor, holdout: pl.DataFrame) -> dict[str, Any]:
    """Compare what the model sees of rows among many, alone, and with the target hidden.

    Parameters
    ----------
    holdout
        Untouched rows with all columns, the target included.

    Returns
    -------
    dict
        ``rows`` checked; ``max_difference`` between a row's features among all and alone or in a small batch (relative
        for values above 1), ``columns`` where they differ, ``row_wise``; ``uses_target``: columns that change when the
        target is hidden; ``warnings`` in words. A server gets rows one by one: features that need the others will be
        others there.
    """
    manifest = predictor.manifest
    places = np.unique(np.linspace(0, holdout.height - 1, _CHECKED_ROWS).astype(int))
    some = holdout[places.tolist()]
    whole = _table(predictor.features(holdout))
    expected = {name: values[places] for name, values in whole.items() if len(values) == holdout.height}
    warnings: list[str] = []
    try:
        batches = [_table(predictor.features(some))]
        ones = [_table(predictor.features(some[place])) for place in range(some.height)]
    except OrreryError as error:
        warnings.append(f"Features of single rows cannot be computed: {error.what}")
        return {"rows": len(places), "max_difference": None, "columns": {}, "row_wise": False, "warnings": warnings}
    if ones:
        batches.append({name: np.concatenate([one[name] for one in ones]) for name in ones[0]})
    differ: dict[str, float] = {}
    for batch in batches:
        for name, values in expected.items():
            apart = _difference(values, batch.get(name))
            if apart > 0:
                differ[name] = max(apart, differ.get(name, 0.0))
    if differ:
        warnings.append(
            f"{', '.join(sorted(differ)[:5])}: a row's value depends on the rows it comes with, so it will be another "
            "when serving. Compute from the row alone, or learn in a step of its own and name it in [pipeline] keep."
        )
    leaks = _uses_target(predictor, some, batches[0])
    if leaks:
        warnings.append(
            f"{', '.join(leaks[:5])}: made from the target {manifest.target}, which is not known when serving."
        )
    return {
        "rows": len(places),
        "max_difference": max(differ.values(), default=0.0),
        "columns": differ,
        "row_wise": not differ,
        "uses_target": leaks,
        "warnings": warnings,
    }


def _uses_target(predictor: Predictor, some: pl.DataFrame, hidden: dict[str, Any]) -> list[str]:
    target = predictor.manifest.target
    fitted = predictor.columns.of_frame(some).frame
    if target not in fitted.columns:
        return []  # the pipeline never gets it with the rows
    seen = _table(predictor.features_unhidden(fitted.with_columns(some.get_column(target))))
    return [name for name, values in hidden.items() if _difference(values, seen.get(name)) > 0]


def _table(features: Any) -> dict[str, Any]:
    """Columns of a frame or array as arrays, by name."""
    if isinstance(features, pl.Series):
        return {features.name or "0": features.to_numpy()}
    if isinstance(features, pl.DataFrame):
        return {name: features.get_column(name).to_numpy() for name in features.columns}
    if hasattr(features, "columns"):  # pandas
        return {str(name): np.asarray(features[name]) for name in features.columns}
    array = np.asarray(features.todense()) if hasattr(features, "todense") else np.asarray(features)
    if array.ndim == 1:
        return {"0": array}
    return {str(place): array[:, place] for place in range(array.shape[1])} if array.ndim == 2 else {}


def _difference(left: Any, right: Any) -> float:
    """Largest difference of two columns, relative to their size; infinite where they cannot be compared."""
    if right is None or len(left) != len(right):
        return float("inf")
    if left.dtype.kind in "fiub" and right.dtype.kind in "fiub":
        a, b = left.astype(float), right.astype(float)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        a, b = np.where(same, 0.0, a), np.where(same, 0.0, b)
        apart = np.abs(a - b) / np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
        worst = float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))
        return worst if worst > _EQUAL else 0.0
    pairs = zip(left.tolist(), right.tolist(), strict=True)
    return 0.0 if all(_same(a, b) for a, b in pairs) else 1.0


def _same(left: Any, right: Any) -> bool:
    return bool(left == right or (left != left and right != right) or (left is None and right is None))
