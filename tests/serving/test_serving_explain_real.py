"""Explanations of real versions over real HTTP and gRPC: they add up to the answer, or say why there is none."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil
import pytest

from orrery.serving import explaining
from serving.conftest import Served
from training.conftest import Trainer

pytestmark = pytest.mark.slow

FEATURES = """
def features(rows):
    return rows.select("a", "b")
"""
TREE = f"""{FEATURES}
def model(features, y):
    from sklearn.tree import DecisionTreeClassifier
    return DecisionTreeClassifier(max_depth=3, random_state=0).fit(features, y)
"""
CLASSES = f"""{FEATURES}
def model(features, y):
    from sklearn.linear_model import LogisticRegression
    return LogisticRegression().fit(features, y)
"""
COMPILED = """
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def model(rows, y):
    columns = make_column_transformer((StandardScaler(), ["a", "b"]))
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5, random_state=1)).fit(rows, y)
"""
NO_TABLE = """
import numpy as np

def features(rows):
    return rows.select("a", "b").to_numpy()[:, :, None]

def model(features, y):
    return lambda given: 1 / (1 + np.exp(-given[:, 0, 0]))
"""
ROW = {"a": 0.5, "b": -1.0}


def rows(task: str) -> pl.DataFrame:
    random = np.random.default_rng(5)
    a, b = random.normal(size=120), random.normal(size=120)
    y = (
        a > b + random.normal(size=120)
        if task == "binary"
        else np.array(["low", "mid", "high"])[np.digitize(a + b, [-0.5, 0.5])]
    )
    return pl.DataFrame({"a": a, "b": b, "y": y})


@pytest.fixture(scope="module")
def explained(served: Any) -> Iterator[Served]:
    """A server with four models: trees, three classes, what sees no table, and trees without the package shap."""
    found: Served = served()
    try:
        found.start("real", grpc_port=found.grpc_port)
        found.assign(*slots_of(found))
        found.until(lambda: found.http.get("/v2/health/ready").status_code == 200, 120)
        yield found
    finally:
        found.close()


def slots_of(served: Served) -> list[dict[str, Any]]:
    trainer = Trainer(served.folder)
    trees = trainer.version(TREE, rows("binary"))
    models = {
        "trees": (trees, "binary"),
        "classes": (trainer.version(CLASSES, rows("multiclass"), "multiclass"), "multiclass"),
        "compiled": (trainer.version(COMPILED, rows("binary")), "binary"),
        "cube": (trainer.version(NO_TABLE, rows("binary")), "binary"),
    }
    slots = [
        {**served.slot(1, model=name), "artifact": str(artifact), "task": task, "timeout": 30.0}
        for name, (artifact, task) in models.items()
    ]
    slots.append({**slots[0], "model": "bare", "version": 2, "python": without_shap(served.folder)})
    return [*slots, {**slots[0], "environment": "staging", "version": 3, "repair": [0.7, 0.4]}]


def without_shap(folder: Path) -> str:
    """Return an interpreter in which there is everything but shap."""
    (folder / "hidden").mkdir()
    (folder / "hidden" / "shap.py").write_text("raise ImportError('it is not here')\n")
    program = folder / "python-without-shap"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={folder / "hidden"} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return str(program)


def ask(served: Served, model: str, content: Any, path: str = "predict?explain=true", **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.http.post(f"/models/{model}/{path}", json=content, headers=names, timeout=120)


def test_a_row_is_explained_and_the_contributions_add_up_to_its_answer(explained: Served) -> None:
    plain = ask(explained, "trees", ROW, "predict").json()
    assert "explanation" not in plain and "explained" not in plain
    found = ask(explained, "trees", ROW).json()
    assert found["probability"] == plain["probability"]
    why, how = found["explanation"], found["explained"]
    assert (how["method"], how["scale"], set(why["contributions"])) == ("Tree SHAP", "probability", {"a", "b"})
    assert why["base"] + sum(why["contributions"].values()) == pytest.approx(found["probability"], abs=1e-6)
    assert why["base"] != pytest.approx(found["probability"], abs=1e-3)  # the base alone is not the answer
    assert how["cost"] > 0
    assert ask(explained, "trees", ROW, "predict?explain=false").json().keys() == plain.keys()


def test_every_form_of_json_carries_it(explained: Served) -> None:
    many = ask(explained, "classes", [ROW, {"a": 2.0, "b": 1.0}]).json()
    assert many["explained"]["scale"] == "scores" and len(many["explanation"]) == 2
    for said, why in zip(many["probability"], many["explanation"], strict=True):
        raw = [base + sum(each.values()) for base, each in zip(why["base"], why["contributions"], strict=True)]
        powers = [math.exp(one) for one in raw]
        assert [one / sum(powers) for one in powers] == pytest.approx(said, abs=1e-6)

    content = {"dataframe_records": [ROW, ROW]}
    mlflow = ask(explained, "trees", content, "invocations?explain=true").json()
    assert (
        len(mlflow["predictions"]) == len(mlflow["explanation"]) == 2 and mlflow["explained"]["method"] == "Tree SHAP"
    )

    inputs = [{"name": name, "datatype": "FP64", "shape": [2], "data": [ROW[name]] * 2} for name in ("a", "b")]
    asked = {"inputs": inputs, "parameters": {"explain": True}, "outputs": [{"name": "probability"}]}
    answer = explained.http.post("/v2/models/trees/infer", json=asked, timeout=60).json()
    tensors = {each["name"]: each for each in answer["outputs"]}
    assert list(tensors) == ["probability", "contributions", "base", "columns"]
    assert tensors["contributions"]["shape"] == [2, 2] and tensors["columns"]["data"] == ["a", "b"]
    total = tensors["base"]["data"][0] + sum(tensors["contributions"]["data"][:2])
    assert total == pytest.approx(tensors["probability"]["data"][0], abs=1e-6)
    assert tensors["contributions"]["parameters"]["method"] == "Tree SHAP"
    odd = explained.http.post("/v2/models/trees/infer", json={**asked, "parameters": {"explain": "please"}})
    assert odd.status_code == 400 and "explain is 'please'" in odd.json()["error"]


def test_a_triton_client_asks_for_it_over_grpc(explained: Served) -> None:
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(f"127.0.0.1:{explained.grpc_port}")
    inputs = [triton.InferInput(name, [1], "FP64") for name in ("a", "b")]
    for each in inputs:
        each.set_data_from_numpy(np.array([ROW[each.name()]]))
    found = client.infer("trees", inputs, parameters={"explain": True})
    total = found.as_numpy("base")[0] + found.as_numpy("contributions").sum()
    assert total == pytest.approx(found.as_numpy("probability")[0], abs=1e-6)
    assert [name.decode() for name in found.as_numpy("columns")] == ["a", "b"]
    assert found.get_output("contributions").parameters["method"].string_param == "Tree SHAP"
    assert client.infer("trees", inputs).as_numpy("contributions") is None
    client.close()


def test_the_explanation_is_of_the_repaired_answer(explained: Served) -> None:
    found = explained.http.post("/env/staging/models/trees/predict?explain=true", json=ROW, timeout=120).json()
    assert found["explained"]["scale"] == "probability before the repair"
    before = ask(explained, "trees", ROW, "predict").json()["probability"]
    why = found["explanation"]
    assert why["base"] + sum(why["contributions"].values()) == pytest.approx(before, abs=1e-6)
    assert found["probability"] != pytest.approx(before, abs=1e-3)


def test_a_compiled_version_is_explained_by_its_own_python(explained: Served) -> None:
    """Its answers come from the server itself; what explains them is started for that alone."""
    found = ask(explained, "compiled", ROW).json()
    why, how = found["explanation"], found["explained"]
    raw = why["base"] + sum(why["contributions"].values())
    assert (how["method"], how["scale"]) == ("Tree SHAP", "log-odds")
    assert 1 / (1 + math.exp(-raw)) == pytest.approx(found["probability"], abs=1e-5)
    artifact = explained.control.assignment["slots"][2]["artifact"]  # type: ignore[index]
    (process,) = [one for one in explained.models() if one.cmdline()[-1] == artifact]
    assert "--nice" in process.cmdline()


def test_what_cannot_be_explained_says_why_and_is_predicted_all_the_same(explained: Served) -> None:
    refused = ask(explained, "cube", ROW)
    assert refused.status_code == 400 and "no table, so it cannot be explained" in refused.json()["error"]
    missing = ask(explained, "bare", ROW)
    assert missing.status_code == 501 and "orrery-ml[explain]" in missing.json()["error"]
    mlflow = ask(explained, "bare", {"dataframe_records": [ROW]}, "invocations?explain=true")
    assert (mlflow.status_code, mlflow.json()["error_code"]) == (501, "NOT_IMPLEMENTED")
    assert [ask(explained, name, ROW, "predict").status_code for name in ("cube", "bare")] == [200, 200]
    before = processes(explained)
    assert 0 < len(before) <= explaining.PROCESSES  # of five that were asked by now
    assert all(process.nice() > psutil.Process().nice() for process in before)


def processes(served: Served) -> list[psutil.Process]:
    """Return the processes that explain."""
    return [process for process in served.models() if "--nice" in process.cmdline()]
