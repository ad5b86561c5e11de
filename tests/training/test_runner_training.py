"""A training ends as a version or as a result that says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from orrery.errors import Damaged
from orrery.pipeline.artifact import SCORE, make_repair, read_manifest, read_score
from orrery.pipeline.predictor import Predictor

GOOD = """
    import numpy as np

    class Line:
        def __init__(self, slope, rows):
            self.slope, self.rows = slope, rows

        def predict(self, given):
            return given["a"].to_numpy() * self.slope

    def features(rows):
        return rows.select("a")

    def model(features, y, *, shrink: float = 1.0):
        a = features["a"].to_numpy()
        return Line(shrink * (a * y.to_numpy()).sum() / (a * a).sum() + np.random.normal() * 1e-3, len(a))
"""


def table(count: int = 240, nulls: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(3)
    a = random.normal(size=count)
    frame = pl.DataFrame(
        {"at": [datetime(2020, 1, 1) + timedelta(hours=i) for i in range(count)], "a": a, "y": 2 * a + 1}
    )
    return frame.with_columns(y=pl.when(pl.int_range(count) < nulls).then(None).otherwise("y"))


def test_a_training_leaves_a_version_and_a_result(trainer: Any) -> None:
    result = trainer.train(GOOD, table(), "regression", model={"time": "at"}, sections={"gates": {"holdout": "2d"}})
    assert result["ok"] and result["error"] is None
    assert [(step["run"], step["name"]) for step in result["steps"]] == [
        (run, name) for run in ("probe", "final") for name in ("features", "model")
    ]
    assert (result["rows"], result["probe_rows"], result["holdout_rows"]) == (240, 192, 48)
    assert result["trained_until"] == "2020-01-10T23:00:00.000000Z"
    assert result["params"] == {"shrink": 1.0}
    assert set(result["metrics"]) == {"absolute_error", "squared_error"}
    untouched = pl.read_parquet(trainer.out / "holdout.parquet")
    output = np.load(trainer.out / "probe_output.npy")
    assert result["metrics"]["absolute_error"] == pytest.approx(np.abs(output[:, 0] - untouched["y"].to_numpy()).mean())
    assert result["cpu_seconds"] > 0 and result["seconds"] > 0
    assert result["consistency"]["row_wise"] is True
    manifest = read_manifest(trainer.out / "artifact")
    assert (manifest.features, manifest.live, manifest.rows_input) == ("features", ("features",), "rows")
    assert set(manifest.columns) == {"at", "a"}


def test_rows_without_a_target_are_left_out_of_every_step(trainer: Any) -> None:
    frame = table(nulls=40).with_columns(y=pl.when(pl.int_range(240) == 39).then(float("nan")).otherwise("y"))
    result = trainer.train(GOOD, frame, "regression")
    assert result["ok"]
    assert result["rows"] == 200
    assert "40 of 240 rows have no y and were left out." in result["warnings"]
    assert pl.read_parquet(trainer.out / "holdout.parquet")["y"].null_count() == 0


def test_the_same_job_gives_the_same_predictions(trainer: Any) -> None:
    outputs = []
    for seed in (1, 1, 2):
        version = trainer.version(GOOD, table(), "regression", seed=seed)
        outputs.append(Predictor.load(version).predict(table()).tobytes())
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]  # the negative control: this model does depend on the seed


def test_a_second_training_comes_from_the_cache_and_is_the_same(trainer: Any, tmp_path: Path) -> None:
    job = trainer.job(GOOD, table(), "regression")
    fields = json.loads(job.read_text())
    outputs = []
    for run in ("first", "second"):
        job.write_text(json.dumps(fields | {"out": str(tmp_path / run)}))
        subprocess.run([sys.executable, "-m", "orrery.training.runner", str(job)], check=True, capture_output=True)
        outputs.append((tmp_path / run / "probe_output.npy").read_bytes())
    second = json.loads((tmp_path / "second" / "result.json").read_text())
    assert all(step["cached"] for step in second["steps"])
    assert outputs[0] == outputs[1]


def test_a_window_trains_on_recent_rows_only(trainer: Any) -> None:
    fields = {"model": {"time": "at"}, "sections": {"gates": {"holdout": "1d"}}}
    result = trainer.train(GOOD, table(), "regression", window="3d", **fields)
    assert result["rows"] == 72
    keys = {step["inputs"].get("rows") for step in result["steps"]} - {None}
    assert len(keys) == 2 and all(key.startswith("rows@v1 ") for key in keys)


def test_parameters_come_from_the_project_and_the_job(trainer: Any) -> None:
    sections = {"pipeline": {"params": {"shrink": 0.5}}}
    assert trainer.train(GOOD, table(), "regression", sections=sections)["params"] == {"shrink": 0.5}
    fields = {"sections": sections, "params": {"shrink": 0.25}}
    assert trainer.train(GOOD, table(), "regression", **fields)["params"] == {"shrink": 0.25}


FAILS = {
    "import": ("import no_such_library", "No module named 'no_such_library'", "import"),
    "syntax": ("def model(rows, y:", "could not be imported: SyntaxError", "import"),
    "nothing": ("def features(rows):\n    return rows", "There is no step model", "probe training"),
    "argument": ("def model(feature, y):\n    return 1", "needs feature, and nothing has that name", "import"),
    "raises": (
        "def features(rows):\n    return rows.select('b')\ndef model(features, y):\n    return 1",
        "The step features failed: ColumnNotFoundError",
        "features",
    ),
    "exits": ("def model(rows, y):\n    raise SystemExit(4)", "The step model failed: SystemExit: 4", "model"),
    "no model": ("def model(rows, y):\n    return rows", "which is no model", "probe training"),
    "a class": ("class M:\n    pass\ndef model(rows, y):\n    return M", "returned the class M", "probe training"),
    "only the target": ("def model(y):\n    return 1", "takes nothing to predict from", "probe training"),
    "uses the target": (
        "def features(rows, y):\n    return rows.select('a')\ndef model(features, y):\n    return lambda x: x['a']",
        "The step features runs for every request and needs y",
        "probe training",
    ),
    "cannot be stored": (
        "import threading\ndef model(rows, y):\n    m = threading.Lock()\n    return lambda x: (x['a'], m)[0]",
        "The model cannot be stored",
        "outcome",
    ),
    "no rows": (
        "def features(y):\n    return y.to_frame()\ndef model(features, y):\n    return lambda x: x['y']",
        "does not depend on the rows of rows",
        "probe training",
    ),
    "unknown keep": ("def model(rows, y):\n    return lambda x: x['a']", "keep names encoder", "probe training"),
}


@pytest.mark.parametrize("case", list(FAILS))
def test_what_a_project_does_wrong_is_a_result(case: str, trainer: Any, capfd: pytest.CaptureFixture[str]) -> None:
    text, said, step = FAILS[case]
    sections = {"pipeline": {"keep": ["encoder"]}} if case == "unknown keep" else {}
    result = trainer.train(text, table(), "regression", sections=sections)
    assert not result["ok"]
    assert said in result["error"]["message"]
    assert result["error"]["step"] == step
    assert result["error"]["kind"] != "internal"
    assert "failed" in capfd.readouterr().out


def test_a_failed_training_exits_with_1_and_keeps_what_was_done(trainer: Any) -> None:
    text = GOOD.replace("shrink: float = 1.0):", "shrink: float = 1.0):\n        1 / 0")
    job = trainer.job(text, table(), "regression")
    done = subprocess.run(
        [sys.executable, "-m", "orrery.training.runner", str(job)], capture_output=True, text=True, check=False
    )
    result = json.loads((trainer.out / "result.json").read_text())
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout
    assert result["error"]["traceback"][-1].startswith("pipeline.py, line")
    assert result["error"]["type"] == "ZeroDivisionError"
    assert [step["name"] for step in result["steps"]] == ["features"]


def test_data_that_cannot_be_learnt_from_is_said(trainer: Any) -> None:
    def message(frame: pl.DataFrame, task: str = "binary", **fields: Any) -> str:
        text: str = trainer.train("def model(rows, y):\n    return 1", frame, task, **fields)["error"]["message"]
        return text

    assert "must be a column of one dataset; it is in none of rows" in message(table().drop("y"))
    assert "A regression needs numbers; y holds String" in message(table().with_columns(y=pl.lit("x")), "regression")
    assert "cannot be learnt from 1 different values of y: 1" in message(table().with_columns(y=1))
    assert "cannot be learnt from 3 different values" in message(table().with_columns(y=pl.int_range(240) % 3))
    assert "no row is left" in message(table().with_columns(y=pl.lit(None, dtype=pl.Float64)), "regression")


NEIGHBOURS = GOOD.replace('rows.select("a")', 'rows.select("a", centred=rows["a"] - rows["a"].mean())')
LEAK = GOOD.replace('rows.select("a")', 'rows.select("a", hint=rows["y"] * 2)')


def test_features_that_need_other_rows_are_noticed(trainer: Any) -> None:
    result = trainer.train(NEIGHBOURS, table(), "regression")
    assert result["ok"]
    assert result["consistency"]["row_wise"] is False
    assert set(result["consistency"]["columns"]) == {"centred"}
    assert any("centred: a row's value depends on the rows it comes with" in each for each in result["warnings"])


def test_features_made_of_the_target_are_noticed(trainer: Any) -> None:
    result = trainer.train(LEAK, table(), "regression")
    assert result["consistency"]["uses_target"] == ["hint"]
    assert any("hint: made from the target y" in each for each in result["warnings"])
    assert trainer.train(GOOD, table(), "regression")["consistency"]["uses_target"] == []


def test_other_datasets_are_kept_for_serving(trainer: Any, tmp_path: Path) -> None:
    text = """
        def features(rows, cities):
            return rows.select("a", "city").join(cities, on="city", how="left", maintain_order="left")

        def model(features, y):
            return lambda given: (given["a"] * given["factor"]).to_numpy()
    """
    frame = table().with_columns(city=pl.Series(["x", "y"] * 120))
    cities = tmp_path / "cities.parquet"
    pl.DataFrame({"city": ["x", "y"], "factor": [1.0, 10.0]}).write_parquet(cities)
    job = json.loads(trainer.job(text, frame, "regression").read_text())
    job["spec"]["data"]["cities"] = "cities"
    job["datasets"]["cities"] = {"path": str(cities), "key": "cities@v1"}
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    from orrery.training import runner

    assert runner.main([str(path)]) == 0
    cities.unlink()
    predictor = Predictor.load(trainer.out / "artifact")
    assert predictor.predict(pl.DataFrame({"a": [1.0, 1.0], "city": ["x", "y"]})).tolist() == [[1.0], [10.0]]


def test_infinite_and_missing_features_that_stay_the_same_are_no_difference(trainer: Any) -> None:
    text = GOOD.replace(
        'rows.select("a")', 'rows.select("a", far=1 / (rows["a"] * 0), none=rows["a"] * float("nan"), text=rows["s"])'
    )
    result = trainer.train(text, table().with_columns(s=pl.Series(["u", None] * 120)), "regression")
    assert result["consistency"]["columns"] == {}


TWO = """
    class Sum:
        def predict(self, given):
            return given["a"].to_numpy() + given["c"].to_numpy()

    def features(rows):
        if (rows["a"] > rows["top"]).any():
            raise ValueError("above the top")
        return rows.select("a", "c")

    def model(features, y):
        return Sum()
"""


def wide(count: int = 600) -> pl.DataFrame:
    random = np.random.default_rng(4)
    return pl.DataFrame(
        {
            "key": [f"k{place}" for place in range(count)],
            "at": [datetime(2020, 1, 1) + timedelta(hours=place) for place in range(count)],
            "a": random.normal(size=count),
            "c": random.normal(size=count),
            "afterwards": random.normal(size=count),
            "top": np.full(count, 100.0),
            "y": random.normal(size=count),
        }
    )


def test_a_version_learns_what_its_rows_are_like_from_the_columns_that_its_answers_depend_on(trainer: Any) -> None:
    model = {"time": "at", "entity": "key"}
    version = trainer.version(TWO, wide(), "regression", model=model, sections={"gates": {"holdout": "0.4"}})
    score = read_score(version)
    assert score is not None
    assert score.columns == ("a", "c", "top"), "neither keys, nor what no answer depends on; what never varies does"
    usual = {"a": np.zeros(1), "c": np.zeros(1), "top": np.full(1, 100.0)}
    assert score.scores(usual)[0] < 1 and score.scores(usual | {"top": np.zeros(1)})[0] == pytest.approx(score.highest)
    assert score.scores(usual | {"c": np.full(1, 50.0)})[0] == pytest.approx(score.highest)


def test_a_version_that_insists_on_which_values_go_together_counts_all_columns(trainer: Any) -> None:
    frame = wide().with_columns(top=pl.col("a") + 0.001)
    version = trainer.version(TWO, frame, "regression", model={"time": "at"}, sections={"gates": {"holdout": "0.4"}})
    score = read_score(version)
    assert score is not None and score.columns == ("key", "a", "c", "afterwards", "top")


def test_too_few_untouched_rows_are_no_reason_not_to_train(trainer: Any) -> None:
    assert read_score(trainer.version(GOOD, table(), "regression")) is None


def test_a_repair_scores_as_what_it_repairs_and_other_bytes_are_no_score(trainer: Any, tmp_path: Path) -> None:
    frame = wide().with_columns(y=(pl.col("y") > 0).cast(pl.Int64))
    code = TWO.replace("def predict(", "def predict_proba(").replace(
        'return given["a"].to_numpy() + given["c"].to_numpy()',
        "import numpy as np; p = 1 / (1 + np.exp(-given['a'].to_numpy())); return np.column_stack([1 - p, p])",
    )
    version = trainer.version(code, frame, "binary", sections={"gates": {"holdout": "0.4"}})
    make_repair(version, 1.5, 0.1, tmp_path / "repaired")
    score, same = read_score(version), read_score(tmp_path / "repaired")
    assert score is not None and same is not None and score.to_bytes() == same.to_bytes()
    assert "c" not in score.columns
    (tmp_path / "repaired" / SCORE).unlink()
    (tmp_path / "repaired" / SCORE).write_bytes(b"{}")
    with pytest.raises(Damaged):
        read_score(tmp_path / "repaired")
