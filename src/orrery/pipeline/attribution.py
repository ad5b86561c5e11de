"""The contributions that a library can compute of its own models: linear ones exactly, trees by Tree SHAP.

Each function takes a fitted estimator and the rows as that estimator sees them, and returns base of shape (k,) and
contributions of shape (rows, k, columns), or None for a model that is not its own. Nothing here is trusted: the caller
checks that the sum is the model's own answer (see :mod:`orrery.pipeline.explain`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from orrery.errors import NotAllowed

FloatArray = npt.NDArray[np.float64]
Shares = tuple[FloatArray, FloatArray]

TREES = ("sklearn.tree.", "sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.ensemble._hist_gradient")
"""Modules of scikit-learn whose models Tree SHAP is for."""


def linear(model: Any, rows: Any, background: Any) -> Shares | None:
    """Coefficient times distance from the background's mean: the Shapley values of a linear model."""
    if not hasattr(model, "coef_") or not hasattr(model, "intercept_") or hasattr(model, "support_vectors_"):
        return None
    slopes = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    given, mean = dense(rows), dense(background).mean(axis=0)
    if slopes.ndim != 2 or slopes.shape[1] != given.shape[1]:
        return None
    base = np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64), len(slopes)) + slopes @ mean
    return base, slopes[None] * (given - mean)[:, None, :]


def xgboost(model: Any, rows: Any, background: Any) -> Shares | None:
    """XGBoost's own Tree SHAP."""
    library = sys.modules.get("xgboost")  # a model of it has it imported
    if library is None or not isinstance(model, library.XGBModel):
        return None
    booster = model.get_booster()
    matrix = library.DMatrix(rows, missing=model.missing, enable_categorical=bool(model.enable_categorical))
    best = getattr(booster, "best_iteration", None)
    trees = (0, best + 1) if best is not None and model.early_stopping_rounds else (0, 0)
    return _last_is_base(booster.predict(matrix, pred_contribs=True, iteration_range=trees))


def lightgbm(model: Any, rows: Any, background: Any) -> Shares | None:
    """LightGBM's own Tree SHAP."""
    library = sys.modules.get("lightgbm")
    if library is None or not isinstance(model, library.LGBMModel | library.Booster):
        return None
    found = np.asarray(model.predict(rows, pred_contrib=True))
    booster = model if isinstance(model, library.Booster) else model.booster_
    return _last_is_base(found.reshape(len(found), -1, booster.num_feature() + 1))


def catboost(model: Any, rows: Any, background: Any) -> Shares | None:
    """CatBoost's own Tree SHAP."""
    library = sys.modules.get("catboost")
    if library is None or not isinstance(model, library.CatBoost):
        return None
    pool = library.Pool(rows, cat_features=model.get_cat_feature_indices())
    return _last_is_base(np.asarray(model.get_feature_importance(pool, type="ShapValues")))


def trees(model: Any, rows: Any, background: Any) -> Shares | None:
    """Tree SHAP of scikit-learn's trees, forests and gradient boosting, by the package ``shap``.

    Raises
    ------
    NotAllowed
        If the package is not there.
    """
    if not type(model).__module__.startswith(TREES) or not hasattr(model, "n_features_in_"):
        return None
    if getattr(model, "is_categorical_", None) is not None:
        return None  # its splits by sets of categories are not known to shap
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of plots, which are not made here
            import shap
    except ImportError as error:
        raise NotAllowed(
            f"Explaining a {type(model).__name__} takes the package shap, which is not installed beside this model.",
            safe="Predictions need nothing of it.",
            todo="Add orrery-ml[explain] to the project's requirements: pip install 'orrery-ml[explain]'.",
        ) from error
    explainer = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    values = np.asarray(explainer.shap_values(dense(rows), check_additivity=False), dtype=np.float64)
    if values.ndim == 2:
        values = values[:, :, None]
    return np.atleast_1d(np.asarray(explainer.expected_value, dtype=np.float64)), values.transpose(0, 2, 1)


WAYS: tuple[tuple[str, Callable[[Any, Any, Any], Shares | None]], ...] = (
    ("linear, exact", linear),
    ("Tree SHAP of XGBoost", xgboost),
    ("Tree SHAP of LightGBM", lightgbm),
    ("Tree SHAP of CatBoost", catboost),
    ("Tree SHAP", trees),
)
"""By the name that the answer says."""


def dense(rows: Any) -> FloatArray:
    """Return rows as numbers, sparse ones filled in."""
    if hasattr(rows, "toarray"):
        rows = rows.toarray()
    return np.asarray(rows.to_numpy() if hasattr(rows, "to_numpy") else rows, dtype=np.float64)


def _last_is_base(found: Any) -> Shares:
    shares = np.asarray(found, dtype=np.float64)
    if shares.ndim == 2:
        shares = shares[:, None, :]
    return shares[0, :, -1], shares[:, :, :-1]
