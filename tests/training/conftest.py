"""A project folder that tests write to, and runs of it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orrery.training.pipeline import Cache, Input, Pipeline, RunResult, StepReport, load_module


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
