"""The compiled form of a version answers as the version itself, or leaves the row to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest

from orrery.errors import Damaged
from orrery.pipeline.artifact import make_repair
from orrery.pipeline.compiled import Compiled, Unproven
from orrery.pipeline.manifest import read_manifest
from orrery.pipeline.predictor import Predictor
from orrery.pipeline.rows import RowRefused
from orrery.pipeline.verdict import GRAPH, MISSING, VERDICT, Column, Verdict, read_verdict
from orrery.training.convert import convert

WHOLE = """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def model(rows, y):
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        columns = make_column_transformer((numbers, ["a", "n"]), (OneHotEncoder(handle_unknown="ignore"), ["city"]))
        return make_pipeline(columns, LogisticRegression()).fit(rows, y)
"""
SELECTED = WHOLE.replace(
    "def model(rows, y):",
    """NAMES = ["city", "n"]

    def features(rows):
        \"\"\"Columns, as they come.\"\"\"
        return rows.select(*NAMES, "a")

    def model(features, y):""",
).replace("fit(rows, y)", "fit(features, y)")
STEPPED = """
    from sklearn.linear_model import LogisticRegression

    def features(rows):
        return rows.select(rows["a"].fill_null(0.0), twice=rows["n"] * 2)

    def model(features, y):
        return LogisticRegression().fit(features, y)
"""


def frame(count: int = 400) -> pl.DataFrame:
    random = np.random.default_rng(5)
    a, n = random.normal(size=count), random.integers(0, 9, count)
    city = random.choice(["x", "yy", "Zürich"], count)
    table = pl.DataFrame({"a": a, "n": n, "city": city, "y": a + (city == "x") + random.normal(size=count) > 0.3})
    return table.with_columns(a=pl.when(pl.int_range(count) % 13 == 0).then(None).otherwise("a"))


@pytest.fixture(scope="module", params=["direct", "selected"])
def version(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A version whose model sees requests as they come, the second by way of a step that turns their columns round."""
    from training.conftest import Trainer

    rows = frame().with_columns(unused=pl.lit("u")) if request.param == "selected" else frame()
    return Trainer(tmp_path_factory.mktemp("whole")).version(SELECTED if request.param == "selected" else WHOLE, rows)


def ask(version: Path, columns: dict[str, list[Any]], rows: int = 1) -> tuple[Any, Any]:
    """What the compiled form says, and what the version itself says."""
    compiled, own = Compiled.load(version), Predictor.load(version)
    assert compiled is not None
    fitted = own.columns.of_values(columns, rows)
    assert compiled.unlike(columns) == (fitted.missing, fitted.extra)
    return compiled.predict(columns, rows), own.predict_rows(fitted)


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ({"a": [0.5], "n": [3], "city": ["x"]}, 1),
        ({"a": [1], "n": [3.0], "city": ["never seen"]}, 1),
        ({"a": [None], "n": [3], "city": [None]}, 1),
        ({}, 1),
        ({"city": ["x"], "other": [{"deep": []}], "y": [True]}, 1),
        ({"a": [0.5, 1, None], "n": [3, 4, None], "city": ["x", "", None]}, 3),
        ({"a": [0.5, 1e300], "n": [3.0, None]}, 2),
        ({"a": []}, 0),
    ],
)
def test_it_answers_as_the_version_itself(version: Path, columns: dict[str, list[Any]], rows: int) -> None:
    said, own = ask(version, columns, rows)
    assert said.shape == own.shape and said.dtype == np.float64
    assert np.abs(said - own).max(initial=0.0) < 1e-9


REFUSED: list[dict[str, Any]] = [
    {"a": ["0.5"]},
    {"a": [True]},
    {"n": [2.5]},
    {"n": [2**63]},
    {"n": ["2"]},
    {"city": [5]},
    {"city": [["x"]]},
    {"a": [0.5, 0.5]},
    {"a": 0.5},
    {"a": "5"},
]


@pytest.mark.parametrize("columns", REFUSED)
def test_what_the_version_refuses_is_left_to_it(version: Path, columns: dict[str, Any]) -> None:
    compiled, own = Compiled.load(version), Predictor.load(version)
    assert compiled is not None
    with pytest.raises(RowRefused):
        own.columns.of_values(columns, 1)
    with pytest.raises(Unproven):
        compiled.predict(columns, 1)
    with pytest.raises(Unproven):
        compiled.predict(
            {name: list(values) * 3 if isinstance(values, list) else values for name, values in columns.items()}, 3
        )


@pytest.mark.parametrize("columns", [{"a": [float("inf")]}, {"city": [MISSING]}, {"n": [2**60]}, {"a": [10**400]}])
def test_what_was_not_proven_is_left_to_the_version(version: Path, columns: dict[str, Any]) -> None:
    compiled = Compiled.load(version)
    assert compiled is not None
    with pytest.raises(Unproven):
        compiled.predict(columns, 1)


def test_a_batch_says_what_its_rows_say(version: Path) -> None:
    compiled = Compiled.load(version)
    assert compiled is not None
    rows = frame().drop("y").to_dict(as_series=False)
    ones = [compiled.predict({name: [values[at]] for name, values in rows.items()}, 1) for at in range(100)]
    many = compiled.predict({name: values[:100] for name, values in rows.items()}, 100)
    assert np.abs(np.concatenate(ones) - many).max() < 1e-12


def test_features_in_python_and_the_model_compiled(trainer: Any) -> None:
    version = trainer.version(STEPPED, frame())
    compiled = Compiled.load(version)
    assert compiled is not None and not compiled.whole
    rows = frame().drop("y")
    quick, own = Predictor.load(version, quick=True), Predictor.load(version)
    assert np.abs(quick.predict(rows) - own.predict(rows)).max() < 1e-9
    # The negative control: it is the graph that answers, for without it the answer would be an error.
    quick.model = None
    assert quick.predict(rows).shape == (len(rows), 1)


CODES = """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    def features(rows):
        return rows.select("n")

    def model(features, y):
        return make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(features, y)
"""


def test_a_null_among_whole_numbers_is_left_to_the_version(trainer: Any) -> None:
    folder = trainer.version(CODES, frame())
    column = Column(name="n", kind="whole", group="wholes", nulls=False)
    graph = convert(Predictor.load(folder).model, "predict_proba", [column], "double")
    verdict = Verdict(columns=(column,), output=graph.output, picks=(1,))
    compiled = Compiled(verdict, read_manifest(folder), graph.content)
    assert compiled.of_features({"n": np.array([3, 4])}, 2).shape == (2, 1)
    with pytest.raises(Unproven, match="something else than whole numbers"):
        compiled.of_features({"n": np.array([3.0, np.nan])}, 2)  # as a frame gives a column with a null


def test_a_repair_is_compiled_as_what_it_repairs(version: Path, tmp_path: Path) -> None:
    make_repair(version, 0.5, 0.1, tmp_path / "repaired")
    columns = {"a": [0.5], "n": [3], "city": ["x"]}
    said, own = ask(tmp_path / "repaired", columns)
    assert np.abs(said - own).max() < 1e-9
    assert abs(said[0, 0] - ask(version, columns)[0][0, 0]) > 1e-3


def test_a_version_without_a_verdict_is_served_as_before(version: Path, tmp_path: Path) -> None:
    make_repair(version, 1.0, 0.0, tmp_path / "old")
    (tmp_path / "old" / VERDICT).unlink()
    assert Compiled.load(tmp_path / "old") is None
    assert read_verdict(tmp_path / "old") is None


def test_a_graph_that_was_changed_is_damage(version: Path, tmp_path: Path) -> None:
    make_repair(version, 1.0, 0.0, tmp_path / "changed")
    graph = onnx.load_from_string((version / GRAPH).read_bytes())
    graph.doc_string = "changed"
    (tmp_path / "changed" / GRAPH).unlink()
    (tmp_path / "changed" / GRAPH).write_bytes(graph.SerializeToString())
    with pytest.raises(Damaged):
        Compiled.load(tmp_path / "changed")


def test_nothing_heavy_is_loaded_with_it(version: Path) -> None:
    code = (
        "import sys; from orrery.pipeline.compiled import Compiled; c = Compiled.load(sys.argv[1]);"
        "print(c.predict({'a': [0.5]}, 1)); print(sorted({'polars', 'sklearn', 'pickle5', 'skl2onnx', 'onnx', 'mlflow',"
        " 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code, str(version)], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
