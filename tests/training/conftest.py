"""A project folder that tests write to, and runs of it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from orrery.pipeline.pipeline import Cache, Input, Pipeline, RunResult, StepReport, load_module
from orrery.training import runner

SAYING = """
import numpy as np

class Saying:
    def predict_proba(self, rows):
        said = rows["said"].to_numpy()
        return np.column_stack([1 - said, said])

def model(rows, y):
    return Saying()
"""
"""A project whose model says what stands in its rows."""


class Project:
    """Each run loads the project anew, as a new commit's checkout would be."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.root.mkdir()
        self.cache = Cache(folder / "cache")

    def write(self, text: str, file: str = "pipeline.py") -> Project:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return self

    def edit(self, old: str, new: str, file: str = "pipeline.py") -> Project:
        text = (self.root / file).read_text()
        assert old in text
        (self.root / file).write_text(text.replace(old, new))
        return self

    def pipeline(self, inputs: Mapping[str, Input] | None = None) -> Pipeline:
        return Pipeline(load_module(self.root), inputs or ())

    def run(
        self,
        target: str | list[str],
        inputs: Mapping[str, Input] | None = None,
        environment: str = "environment 1",
        **params: Any,
    ) -> RunResult:
        inputs = inputs or {}
        return self.pipeline(inputs).run(target, inputs, params, self.cache, environment)

    def report(self, target: str, *args: Any, **params: Any) -> StepReport:
        return self.run(target, *args, **params).reports[-1]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


class Trainer:
    """Trains a project as the platform does, but in this process; each training has a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = 0
        self.root = folder / "checkout"
        self.root.mkdir()

    def job(
        self,
        text: str,
        frame: pl.DataFrame,
        task: str = "binary",
        sections: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
        model: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Path:
        """Write the project, the data (dataset ``rows``, target ``y``) and the job; returns the job's file."""
        self.runs += 1
        for name, content in {"pipeline.py": text, **(files or {})}.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(textwrap.dedent(content))
        data = self.folder / f"rows-{self.runs}.parquet"
        frame.write_parquet(data)
        self.out = self.folder / f"out-{self.runs}"
        job = {
            "checkout": str(self.root),
            "spec": {
                "model": {"name": "toy", "task": task, "target": "y", **(model or {})},
                "data": {"rows": "rows"},
                **(sections or {}),
            },
            "datasets": {"rows": {"path": str(data), "key": f"rows@v{self.runs}"}},
            "out": str(self.out),
            "cache": str(self.folder / f"cache-{self.runs}"),
            "seed": 1,
        }
        path = self.folder / f"job-{self.runs}.json"
        path.write_text(json.dumps(job | fields))
        return path

    def train(self, text: str, frame: pl.DataFrame, task: str = "binary", **fields: Any) -> dict[str, Any]:
        """Train; returns the result, and leaves the run's folder in `out`."""
        code = runner.main([str(self.job(text, frame, task, **fields))])
        result: dict[str, Any] = json.loads((self.out / "result.json").read_text())
        assert code == (0 if result["ok"] else 1)
        return result

    def version(self, text: str, frame: pl.DataFrame, task: str = "binary", **fields: Any) -> Path:
        """Train what must succeed; returns the artifact."""
        result = self.train(text, frame, task, **fields)
        assert result["ok"], result["error"]
        return self.out / "artifact"


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path)
