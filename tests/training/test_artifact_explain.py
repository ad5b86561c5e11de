"""Contributions add up to what the model answers, by whatever way they were computed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery.errors import NotAllowed, NotUnderstood
from orrery.pipeline import explain as module
from orrery.pipeline.artifact import make_repair
from orrery.pipeline.client import ModelProcess
from orrery.pipeline.explain import MAX_ROWS, Explainer, Explanation, scale_of
from orrery.pipeline.predictor import Predictor
from orrery.pipeline.shapley import Table, shapley
from orrery.workers.contained import Contained, spawn

FEATURES = """
    import numpy as np

    def features(rows):
        return rows.select("a", "b", "city")
"""
PREPARED = """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def _prepared(estimator):
        numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
        words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        return make_pipeline(ColumnTransformer([("n", numbers, ["a", "b"]), ("w", words, ["city"])]), estimator)
"""


def rows(task: str = "binary", count: int = 160) -> pl.DataFrame:
    random = np.random.default_rng(3)
    a, b = random.normal(size=count), random.normal(size=count)
    city = random.choice(["x", "y", "z"], count)
    score = a - 0.5 * b + 1.5 * (city == "x") + random.normal(size=count) * 0.3
    target = {
        "binary": score > 0.5,
        "multiclass": np.array(["low", "mid", "high"])[np.digitize(score, [0, 1])],
        "regression": 10 + score,
    }[task]
    holes = pl.when(pl.int_range(count) % 9 == 0).then(None).otherwise(pl.col("a")).alias("a")
    return pl.DataFrame({"a": a, "b": b, "city": city, "y": target}).with_columns(holes)


def raw_of(explanation: Explanation) -> Any:
    return np.array(explanation.base) + np.array(explanation.contributions).sum(axis=2)


def linked(raw: Any, scale: str) -> Any:
    if scale == "log-odds":
        each = 1 / (1 + np.exp(-raw))
        return each if raw.shape[1] == 1 else each / each.sum(axis=1, keepdims=True)
    if scale == "scores":
        powers = np.exp(raw)
        return powers / powers.sum(axis=1, keepdims=True)
    return np.exp(raw) if scale == "log of the value" else raw


def explained(version: Path, frame: pl.DataFrame) -> tuple[Explanation, Predictor]:
    predictor = Predictor.load(version)
    explainer = Explainer(predictor, pl.read_parquet(version / "sample.parquet"))
    return explainer.explain(predictor.columns.of_frame(frame)), predictor


ASKING = "Shapley values by asking, exact"
CASES = [
    ("binary", "linear_model", "LogisticRegression()", "linear, exact", "log-odds"),
    ("multiclass", "linear_model", "LogisticRegression()", "linear, exact", "scores"),
    ("regression", "linear_model", "PoissonRegressor()", "linear, exact", "log of the value"),
    ("multiclass", "ensemble", "RandomForestClassifier(9, random_state=0)", "Tree SHAP", "probability"),
    ("binary", "ensemble", "HistGradientBoostingClassifier(max_iter=9)", "Tree SHAP", "log-odds"),
    ("binary", "xgboost", "XGBClassifier(n_estimators=9)", "Tree SHAP of XGBoost", "log-odds"),
    ("multiclass", "lightgbm", "LGBMClassifier(n_estimators=9, verbose=-1)", "Tree SHAP of LightGBM", "scores"),
    ("binary", "catboost", "CatBoostClassifier(9, **QUIET)", "Tree SHAP of CatBoost", "log-odds"),
    ("multiclass", "naive_bayes", "GaussianNB()", ASKING, "probability"),
]
MORE = [
    ("multiclass", "linear_model", "SGDClassifier(loss='log_loss')", "linear, exact", "log-odds"),
    ("regression", "linear_model", "Ridge()", "linear, exact", "value"),
    ("binary", "tree", "DecisionTreeClassifier(max_depth=3)", "Tree SHAP", "probability"),
    ("regression", "ensemble", "ExtraTreesRegressor(9, random_state=0)", "Tree SHAP", "value"),
    ("binary", "ensemble", "GradientBoostingClassifier(n_estimators=9)", "Tree SHAP", "log-odds"),
    ("multiclass", "ensemble", "HistGradientBoostingClassifier(max_iter=5)", "Tree SHAP", "scores"),
    ("regression", "xgboost", "XGBRegressor(n_estimators=9)", "Tree SHAP of XGBoost", "value"),
    ("binary", "lightgbm", "LGBMClassifier(n_estimators=9, verbose=-1)", "Tree SHAP of LightGBM", "log-odds"),
    ("multiclass", "catboost", "CatBoostClassifier(9, **QUIET)", "Tree SHAP of CatBoost", "scores"),
    ("binary", "naive_bayes", "GaussianNB()", ASKING, "probability"),
    ("regression", "neighbors", "KNeighborsRegressor()", ASKING, "value"),
]
BOOSTING = ("xgboost", "lightgbm", "catboost")


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    ("task", "library", "estimator", "method", "scale"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
def test_contributions_add_up(task: str, library: str, estimator: str, method: str, scale: str, trainer: Any) -> None:
    text = f"""{FEATURES}{PREPARED}
    def model(features, y):
        from {library if library in BOOSTING else f"sklearn.{library}"} import {estimator.partition("(")[0]}
        QUIET = dict(verbose=0, allow_writing_files=False)
        return _prepared({estimator}).fit(features, y)
    """
    frame = rows(task)
    version = trainer.version(text, frame, task)
    asked = frame.head(12).drop("y")
    found, predictor = explained(version, asked)
    assert (found.method, found.scale, found.note) == (method, scale, "")
    assert found.columns == ["a", "b", "city"] and found.cost > 0
    said = predictor.predict(asked)
    assert np.allclose(linked(raw_of(found), found.scale), said, rtol=1e-4, atol=1e-4)
    assert len(found.base) == predictor.manifest.width
    # A column that is left out leaves a sum that is not the answer.
    shares = np.array(found.contributions)
    without = np.array(found.base) + shares[:, :, 1:].sum(axis=2)
    assert not np.allclose(linked(without, found.scale), said, rtol=1e-2, atol=1e-2)
    # The city decides most, and the city is one column, however it was encoded.
    assert np.abs(shares[:, :, 2]).mean() > 0


def test_a_linear_model_is_explained_by_its_coefficients(trainer: Any) -> None:
    text = f"""{FEATURES.replace(', "city"', "")}
    def model(features, y):
        from sklearn.linear_model import LinearRegression
        return LinearRegression().fit(features.fill_null(0), y)
    """
    frame = rows("regression").with_columns(pl.col("a").fill_null(0))
    version = trainer.version(text, frame, "regression")
    found, predictor = explained(version, frame.head(5))
    sample = pl.read_parquet(version / "sample.parquet").select("a", "b").to_numpy()
    wanted = predictor.model.coef_ * (frame.head(5).select("a", "b").to_numpy() - sample.mean(axis=0))
    assert np.allclose(np.array(found.contributions)[:, 0], wanted)


def test_a_repair_is_in_the_explanation(trainer: Any, tmp_path: Path) -> None:
    text = f"""{FEATURES}{PREPARED}
    def model(features, y):
        from sklearn.linear_model import LogisticRegression
        return _prepared(LogisticRegression()).fit(features, y)
    """
    version = trainer.version(text, rows())
    make_repair(version, 0.7, 0.4, tmp_path / "repaired")
    found, predictor = explained(tmp_path / "repaired", rows().head(6))
    plain, _ = explained(version, rows().head(6))
    assert np.allclose(linked(raw_of(found), "log-odds"), predictor.predict(rows().head(6)), atol=1e-6)
    assert not np.allclose(raw_of(found), raw_of(plain))


def test_a_model_of_many_columns_is_sampled_with_its_error(trainer: Any) -> None:
    names = [f"c{at}" for at in range(11)]
    random = np.random.default_rng(0)
    frame = pl.DataFrame({name: random.normal(size=80) for name in names})
    frame = frame.with_columns(y=pl.col("c0") * pl.col("c1") + 2 * pl.col("c2"))
    text = """
        def features(rows):
            return rows.drop("y")

        def model(features, y):
            return lambda given: (given["c0"] * given["c1"] + 2 * given["c2"]).to_numpy()
    """
    version = trainer.version(text, frame, "regression")
    found, predictor = explained(version, frame.head(3))
    again, _ = explained(version, frame.head(3))
    alone, _ = explained(version, frame[2:3])
    assert found.method == "Shapley values by asking, sampled"
    assert np.allclose(raw_of(found), predictor.predict(frame.head(3)))
    assert found.contributions == again.contributions and found.contributions[2:] == alone.contributions
    background = frame.head(50).gather_every(5)
    exact = 2 * (frame["c2"][0] - background["c2"].mean())
    assert found.error is not None and 0 < found.error < 0.5 and 2048 <= found.asked <= 8192
    assert abs(found.contributions[0][0][2] - exact) < 1e-9  # what no other column changes is exact in every order
    assert np.abs(np.array(found.contributions)[:, :, 3:]).max() < 1e-12


def test_exact_and_sampled_agree() -> None:
    random = np.random.default_rng(1)
    given, background = random.normal(size=(2, 6)), random.normal(size=(10, 6))

    def ask(rows: Any, count: int) -> Any:
        return np.column_stack([rows[:, 0] * rows[:, 1] * rows[:, 2] + rows[:, 3], rows[:, 4] ** 2])

    table = Table(given, background)
    base, exact, none, _ = shapley(ask, table)
    _, sampled, error, _ = shapley(ask, table, evaluations=600)
    assert none is None and error is not None and exact.shape == (2, 2, 6)
    assert np.allclose(base, ask(background, 10).mean(axis=0))
    assert np.abs(exact - sampled).max() < 5 * error and error > 0


def test_contributions_of_features_that_steps_make(trainer: Any) -> None:
    text = """
        import polars as pl

        def doubled(rows):
            return rows.select(pl.col("b"), twice=pl.col("b") * 2, long=pl.col("city") == "x")

        def model(doubled, y):
            from sklearn.tree import DecisionTreeClassifier
            return DecisionTreeClassifier(max_depth=3, random_state=0).fit(doubled, y)
    """
    version = trainer.version(text, rows())
    found, _ = explained(version, rows().head(4))
    assert found.columns == ["b", "twice", "long"]


def test_what_does_not_add_up_is_not_believed(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"""{FEATURES}{PREPARED}
    def model(features, y):
        from sklearn.linear_model import LogisticRegression
        return _prepared(LogisticRegression()).fit(features, y)
    """
    version = trainer.version(text, rows())

    monkeypatch.setattr(module, "WAYS", (("wrong", lambda *given: _off(*given)), *module.WAYS[1:]))
    found, _ = explained(version, rows().head(4))
    assert found.method == "Shapley values by asking, exact"
    assert scale_of(np.array([[0.1]]), np.array([[0.7]]), "binary") == ""


def _off(model: Any, given: Any, background: Any) -> Any:
    from orrery.pipeline.attribution import linear

    found = linear(model, given, background)
    assert found is not None
    return found[0], found[1] * 1.1


def test_without_shap_the_error_says_what_to_install(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"""{FEATURES}{PREPARED}
    def model(features, y):
        from sklearn.tree import DecisionTreeClassifier
        return _prepared(DecisionTreeClassifier(max_depth=2)).fit(features, y)
    """
    version = trainer.version(text, rows())
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(NotAllowed, match=r"orrery-ml\[explain\]"):
        explained(version, rows().head(2))


def test_the_process_of_a_version_explains(trainer: Any) -> None:
    text = f"""{FEATURES}{PREPARED}
    def model(features, y):
        from sklearn.linear_model import LogisticRegression
        return _prepared(LogisticRegression()).fit(features, y)
    """
    version = trainer.version(text, rows())
    argv = [sys.executable, "-m", "orrery.pipeline.host", str(version)]

    def launch(printed: IO[bytes]) -> Contained:
        return spawn(argv, cwd=Path("/"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed)

    with ModelProcess(launch) as process:
        found = msgspec.convert(process.explain(rows().head(3)), Explanation)
        assert np.allclose(linked(raw_of(found), found.scale), process.predict(rows().head(3)), atol=1e-6)
        with pytest.raises(NotUnderstood, match="explained at once"):
            process.explain(pl.concat([rows()] * 2).head(MAX_ROWS + 1))
        assert process.predict(rows().head(3)).shape == (3, 1)
