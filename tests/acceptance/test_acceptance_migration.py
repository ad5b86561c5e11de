"""A model that MLflow saved becomes version 1, as docs/from-mlflow.md says it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import joblib
import numpy as np
import polars as pl
import pytest

from acceptance.support import Platform, wait
from orrery.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "from-mlflow.md").read_text()
(PIPELINE,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "joblib" in block)
POLICY = """
[model]
name = "delays"
task = "binary"
target = "delayed"
time = "at"
[data]
flights = "flights"
[gates]
holdout = "2d"
latency = { p99_ms = 10000 }
"""


def flights(rows: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    distance, visits = rng.integers(18, 90, rows).astype(float), rng.poisson(4, rows).astype(float)
    at = pl.select(pl.datetime(2026, 1, 1) + pl.duration(minutes=20) * pl.int_range(rows)).to_series()
    late = rng.random(rows) < 1 / (1 + np.exp(-(0.03 * (distance - 50) + 0.3 * (visits - 4))))
    return pl.DataFrame({"distance": distance, "visits": visits, "at": at, "delayed": late.astype(int)})


SAVE = """
import json, sys
import mlflow.pyfunc, mlflow.sklearn, pandas
from sklearn.linear_model import LogisticRegression
rows = pandas.read_parquet(sys.argv[1])
model = LogisticRegression().fit(rows[["distance", "visits"]], rows["delayed"])
mlflow.sklearn.save_model(model, sys.argv[2], pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle")
asked = pandas.DataFrame(json.loads(sys.argv[3]))
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[2]).predict(asked)[:, 1].tolist()))
"""
ASKED = {"distance": [20.0, 45.0, 80.0], "visits": [1.0, 4.0, 9.0]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A model as MLflow keeps it, and what MLflow answers with it."""
    folder = tmp_path_factory.mktemp("old")
    flights().write_parquet(folder / "rows.parquet")
    words = [str(folder / "rows.parquet"), str(folder / "delays"), json.dumps(ASKED)]
    done = subprocess.run([sys.executable, "-c", SAVE, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "delays", json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def empty(settings: Settings) -> Iterator[Platform]:
    """A running orrery that knows nothing yet."""
    platform = Platform(settings)
    platform.start()
    yield platform
    platform.stop()
    platform.orrery.timeline.engine.dispose()


def test_a_model_of_mlflow_becomes_version_1_and_answers_the_same(
    empty: Platform, saved: tuple[Path, list[float]], tmp_path: Path
) -> None:
    folder, before = saved
    platform = empty
    project = tmp_path / "delays"
    shutil.copytree(folder, project / "bought")
    (project / "pipeline.py").write_text(PIPELINE)
    (project / "orrery.toml").write_text(POLICY)
    platform.orrery.add_data("flights", flights(), why="last year", actor="ann", key="c1")
    said = platform.pushed(project, "delays")
    wait(lambda: platform.orrery.model("delays").waiting())
    body = {"why": "The model that we have served since spring."}
    assert platform.api("POST", "/api/models/delays/versions/1/approve", json=body).status_code == 201, said
    ready = f"{platform.settings.serving_url}/v2/models/delays/ready"
    wait(lambda: httpx.get(ready).is_success)

    split = {"columns": list(ASKED), "data": list(zip(*ASKED.values(), strict=True))}
    answer = httpx.post(
        f"{platform.settings.serving_url}/models/delays/invocations",
        json={"dataframe_split": split},
    )
    assert answer.status_code == 200, answer.text
    assert np.allclose(answer.json()["predictions"], before, atol=1e-7)

    other = joblib.load(folder / "model.pkl")
    other.intercept_ = other.intercept_ + 0.5
    joblib.dump(other, project / "bought" / "model.pkl")
    platform.pushed(project, "delays", "another file")
    wait(lambda: 2 in platform.orrery.model("delays").versions)
    numbers = [event.data["metrics"] for event in platform.events("delays", "trained")]
    assert len(numbers) == 2 and numbers[0] != numbers[1]
