"""A version on disk predicts what the model that was trained predicts, for every kind of model."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from orrery.errors import Damaged, NotFound, NotUnderstood, ProjectFailed
from orrery.pipeline.artifact import make_repair, read_manifest
from orrery.pipeline.predictor import Predictor
from orrery.stats import apply_platt


def rows(count: int = 120, kind: str = "binary") -> pl.DataFrame:
    random = np.random.default_rng(0)
    a, b = random.normal(size=count), random.normal(size=count)
    target = {
        "binary": lambda: a + random.normal(size=count) > 0,
        "multiclass": lambda: np.array(["low", "mid", "high"])[np.digitize(a, [-0.5, 0.5])],
        "regression": lambda: 3 * a + b,
    }[kind]()
    return pl.DataFrame({"a": a, "b": b, "city": random.choice(["x", "y", "z"], count), "y": target})


SKLEARN = {
    "binary": "LogisticRegression",
    "multiclass": "LogisticRegression",
    "regression": "LinearRegression",
}


@pytest.mark.parametrize("task", list(SKLEARN))
def test_scikit_learn_models(task: str, trainer: Any) -> None:
    text = f"""
        from sklearn.linear_model import {SKLEARN[task]} as Estimator

        def features(rows):
            return rows.select("a", "b")

        def model(features, y):
            return Estimator().fit(features, y)
    """
    frame = rows(kind=task)
    version = trainer.version(text, frame, task)
    predictor = Predictor.load(version)
    own = pickle.loads((version / "model.pkl").read_bytes())
    said = own.predict(frame[["a", "b"]]) if task == "regression" else own.predict_proba(frame[["a", "b"]])
    if task == "multiclass":
        order = [list(own.classes_).index(each) for each in predictor.manifest.classes]
        assert predictor.manifest.classes == ("high", "low", "mid")
        said = said[:, order]
    elif task == "binary":
        said = said[:, 1]
    assert np.array_equal(predictor.predict(frame), said.reshape(len(frame), -1))
    assert np.array_equal(predictor.predict(frame.drop("y")), predictor.predict(frame))
    assert predictor.predict(frame.clear()).shape == (0, predictor.manifest.width)
    probe = np.load(trainer.out / "probe_output.npy")
    untouched = pl.read_parquet(trainer.out / "holdout.parquet")
    assert "y" in untouched.columns
    assert np.array_equal(Predictor.load(version, "probe").predict(untouched), probe)
    assert not np.array_equal(predictor.predict(untouched), probe)


BARE = """
    import numpy as np

    def features(rows):
        return rows.select("a")

    def model(features, y):
        middle = float(features["a"].mean())
        return lambda given: given["a"].to_numpy() > middle
"""
DUCK = """
    import numpy as np
    from helpers import sigmoid

    class Stump:
        def __init__(self, middle):
            self.middle = middle

        def predict(self, given):
            return sigmoid(given["a"].to_numpy() - self.middle)

    def features(rows):
        return rows.select("a")

    def model(features, y):
        return Stump(float(features["a"].mean()))
"""
SIGMOID = "import numpy as np\n\n\ndef sigmoid(x):\n    return 1 / (1 + np.exp(-x))\n"


def test_a_bare_function_is_a_model(trainer: Any) -> None:
    version = trainer.version(BARE, rows())
    assert set(Predictor.load(version).predict(rows())[:, 0]) == {0.0, 1.0}


def test_a_class_of_the_project_is_a_model(trainer: Any) -> None:
    version = trainer.version(DUCK, rows(), files={"helpers.py": SIGMOID})
    frame = rows()
    expected = 1 / (1 + np.exp(-(frame["a"] - frame["a"].mean()).to_numpy()))
    assert np.allclose(Predictor.load(version).predict(frame)[:, 0], expected)


def test_versions_with_modules_of_one_name_do_not_mix(trainer: Any) -> None:
    first = trainer.version(DUCK, rows(), files={"helpers.py": SIGMOID})
    second = trainer.version(DUCK, rows(), files={"helpers.py": SIGMOID.replace("np.exp(-x)", "np.exp(x)")})
    old, new = Predictor.load(first), Predictor.load(second)
    frame = rows()
    assert np.allclose(old.predict(frame), 1 - new.predict(frame))
    assert np.allclose(old.predict(frame), 1 - new.predict(frame))


ENCODER = """
    import polars as pl

    class Means:
        def __init__(self, table):
            self.table = table

    def encoder(rows, y):
        return Means(dict(rows.group_by("city").agg(pl.col("a").mean()).iter_rows()))

    def counts(rows):
        return rows.group_by("city").agg(busy=pl.len())

    def features(rows, encoder, counts):
        joined = rows.join(counts, on="city", how="left", maintain_order="left")
        return joined.select("busy", mean=pl.col("city").replace_strict(encoder.table, default=0.0))

    def model(features, y):
        return lambda given: (given["busy"] / 1000 + given["mean"].abs() / 10).to_numpy()
"""


def test_what_was_learnt_in_training_is_kept(trainer: Any) -> None:
    version = trainer.version(ENCODER, rows(kind="regression"), "regression")
    manifest = read_manifest(version)
    assert manifest.live == ("features",)
    assert set(manifest.kept) == {"encoder", "counts"}
    predictor, frame = Predictor.load(version), rows(kind="regression")
    whole = predictor.predict(frame)
    assert np.array_equal(np.vstack([predictor.predict(frame[i]) for i in range(10)]), whole[:10])
    assert len(set(whole[:, 0])) == 3


FIRST = """
    import polars as pl

    def table(rows):
        return rows.select("a")

    def features(rows, table):
        return rows.select("b", first=pl.lit(table["a"].first()))

    def model(features, y):
        return lambda given: given["first"].to_numpy()
"""


def test_keep_overrides_what_would_run_again(trainer: Any) -> None:
    frame = rows(kind="regression")
    version = trainer.version(FIRST, frame, "regression")
    assert read_manifest(version).live == ("table", "features")
    assert Predictor.load(version).predict(frame[5])[0, 0] == frame["a"][5]
    kept = trainer.version(FIRST, frame, "regression", sections={"pipeline": {"keep": ["table"]}})
    assert read_manifest(kept).live == ("features",)
    assert Predictor.load(kept).predict(frame[5])[0, 0] == frame["a"][0]


def test_the_dataset_itself_may_be_what_the_model_sees(trainer: Any) -> None:
    text = """
        from sklearn.linear_model import LinearRegression

        def model(rows, y):
            return LinearRegression().fit(rows, y)
    """
    frame = rows(kind="regression").drop("city")
    version = trainer.version(text, frame, "regression")
    assert np.allclose(Predictor.load(version).predict(frame)[:, 0], frame["y"])


def test_absent_columns_are_null_for_the_steps(trainer: Any) -> None:
    text = """
        def features(rows):
            return rows.select("a", "b").fill_null(0.0)

        def model(features, b):
            return lambda given: (given["a"] + given["b"]).to_numpy()
    """
    version = trainer.version(text, rows(), "regression", model={"target": "b"})
    predictor = Predictor.load(version)
    assert predictor.predict(pl.DataFrame({"a": [1, 2], "unheard": [0, 0]})).tolist() == [[1.0], [2.0]]
    assert predictor.predict(pl.DataFrame({"a": [1.0], "b": [5.0]})).tolist() == [[1.0]]  # b is the target


WRONG = {
    "given[:3].to_numpy()": "returned 3 rows for",
    "0.5": "a single value for",
    "__import__('numpy').full(given.height, float('nan'))": "no finite number for",
    "given['a'].to_numpy() * 0 + 2.0": "a probability is within 0 and 1",
    "__import__('numpy').ones((given.height, 4)) / 4": "a binary model has 1 or 2 columns",
    "['maybe'] * given.height": "'maybe', which is no value of y",
    "[object()] * given.height": "which is no value of y",
    "1 / 0": "The model failed: ZeroDivisionError: division by zero",
    "exit(3)": "SystemExit: 3",
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_what_is_wrong_with_an_answer_is_said(wrong: str, trainer: Any) -> None:
    text = f"""
        def features(rows):
            return rows.select("a")

        def model(features, y):
            return lambda given: {wrong}
    """
    result = trainer.train(text, rows())
    assert not result["ok"]
    assert WRONG[wrong] in result["error"]["message"]
    assert result["error"]["kind"] == "project"


def test_a_repair_moves_probabilities_and_leaves_its_parent_alone(trainer: Any, tmp_path: Path) -> None:
    parent = trainer.version(DUCK, rows(), files={"helpers.py": SIGMOID})
    before, frame = (parent / "version.json").read_bytes(), rows()
    plain = Predictor.load(parent).predict(frame)
    make_repair(parent, 0.5, 0.3, tmp_path / "repair")
    assert np.allclose(Predictor.load(tmp_path / "repair").predict(frame)[:, 0], apply_platt(plain[:, 0], 0.5, 0.3))
    make_repair(tmp_path / "repair", 2.0, -0.1, tmp_path / "again")
    twice = apply_platt(apply_platt(plain[:, 0], 0.5, 0.3), 2.0, -0.1)
    assert np.allclose(Predictor.load(tmp_path / "again").predict(frame)[:, 0], twice)
    assert read_manifest(tmp_path / "again").change == "repair"
    assert (parent / "version.json").read_bytes() == before
    assert np.array_equal(Predictor.load(parent).predict(frame), plain)
    assert (tmp_path / "repair" / "model.pkl").stat().st_nlink > 1


def test_a_regression_cannot_be_repaired(trainer: Any, tmp_path: Path) -> None:
    text = "def model(rows, y):\n    return lambda given: given['a'].to_numpy()\n"
    version = trainer.version(text, rows(kind="regression"), "regression")
    with pytest.raises(NotUnderstood, match="no single probability"):
        make_repair(version, 1.0, 0.0, tmp_path / "repair")


def test_a_folder_without_a_version_and_a_torn_one(trainer: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Predictor.load(tmp_path)
    version = trainer.version(BARE, rows())
    content = (version / "model.pkl").read_bytes()
    (version / "model.pkl").write_bytes(content[: len(content) // 2])
    with pytest.raises(Damaged):
        Predictor.load(version)
    (version / "model.pkl").write_bytes(content)
    (version / "version.json").write_text("{")
    with pytest.raises(Damaged):
        Predictor.load(version)


def test_tests_are_no_part_of_a_version(trainer: Any) -> None:
    files = {"tests/test_x.py": "", "test_y.py": "", "lookup/cities.json": "{}", "helpers.py": SIGMOID}
    version = trainer.version(DUCK, rows(), files=files)
    code = version / "code"
    found = {str(file.relative_to(code)) for file in code.rglob("*") if file.is_file()}
    assert found == {"pipeline.py", "helpers.py", "lookup/cities.json"}


def test_a_step_that_fails_on_requests_is_named(trainer: Any) -> None:
    text = """
        def features(rows):
            return rows.select("a") if rows["y"].null_count() == 0 else rows.select("nothing")

        def model(features, y):
            return lambda given: given["a"].to_numpy()
    """
    result = trainer.train(text, rows(kind="regression"), "regression")
    assert "The step features failed on rows to predict" in result["error"]["message"]
    assert result["error"]["step"] == "features"
    assert any("pipeline.py" in line for line in result["error"]["traceback"])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow warns about itself when it is imported
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_stock_mlflow_client_loads_it(task: str, trainer: Any) -> None:
    import mlflow.models
    import mlflow.pyfunc

    text = f"""
        from sklearn.linear_model import {SKLEARN[task]} as Estimator

        def features(rows):
            return rows.select("a", "b", hour=rows["at"].dt.hour())

        def model(features, y):
            return Estimator().fit(features, y)
    """
    frame = rows(kind=task).with_columns(
        at=pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 5, 23), "1h")
    )
    version = trainer.version(text, frame, task)
    loaded = mlflow.pyfunc.load_model(str(version))
    given = frame.drop("y").to_pandas()
    expected = Predictor.load(version).predict(frame)
    assert np.array_equal(loaded.predict(given), expected[:, 0] if task == "binary" else expected)
    info = mlflow.models.get_model_info(str(version))
    assert info.signature.inputs.input_names() == ["a", "b", "city", "at"]
    assert info.signature.outputs.to_dict()[0]["tensor-spec"]["shape"] == ((-1,) if task == "binary" else (-1, 3))
    with pytest.raises(mlflow.exceptions.MlflowException, match="missing inputs"):
        loaded.predict(given.drop(columns="a"))


def test_a_version_that_failed_is_no_version(trainer: Any) -> None:
    result = trainer.train("def model(rows, y):\n    return 3\n", rows())
    assert "returned a int, which is no model" in result["error"]["message"]
    with pytest.raises(NotFound):
        Predictor.load(trainer.out / "artifact")
    with pytest.raises(ProjectFailed):
        raise ProjectFailed
