"""Models of PyTorch: asked with tensors, compiled and proven like the others, or refused with the reason."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from orrery.pipeline.predictor import Predictor
from orrery.pipeline.verdict import read_verdict
from training.compile_check import check, frame, odd
from training.compile_corpus import IMPORTS, Case
from training.test_artifact_host import command, process_of
from training.torch_corpus import FUNCTION, MODULE, SIGMOID, TORCH

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None, reason="not run: PyTorch is not installed (make test-torch)"
    ),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def text_of(module: str, loss: str = "_yes", text: str = MODULE) -> str:
    return IMPORTS + text.replace("{module}", module).replace("{loss}", loss)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in TORCH])
def test_it_is_equal_or_refused_with_the_reason(case: Case, trainer: Any) -> None:
    check(case, trainer)


def test_columns_as_they_come_are_answered_by_the_graph_alone(trainer: Any) -> None:
    (case,) = [case for case in TORCH if case.name == "PyTorch module of columns as they come"]
    verdict = read_verdict(trainer.version(case.text, frame("binary")))
    assert verdict is not None and verdict.whole and verdict.precision == "single"


def test_its_own_process_answers_as_the_module_does(trainer: Any) -> None:
    """Also where nothing is compiled: in eval mode, so that dropout is off and an answer does not change."""
    import torch

    (case,) = [case for case in TORCH if case.name == "PyTorch module that branches on its data"]
    for text in (text_of(SIGMOID), case.text, text_of(SIGMOID, text=FUNCTION)):
        version = trainer.version(text, frame("binary"))
        rows = odd("binary").select("a", "n", b=pl.col("b").fill_null(1.0))
        own = Predictor.load(version)
        with process_of(command(version)) as process:
            found = process.predict(rows)
            assert (process.predict(rows) == found).all()
        np.testing.assert_allclose(found, own.predict(rows), atol=1e-6)
        if isinstance(own.model, torch.nn.Module):
            with torch.no_grad():
                given = torch.tensor(own.features(rows).to_numpy(), dtype=torch.float32)
                np.testing.assert_allclose(found, own.model.eval()(given).numpy(), atol=1e-6)


def test_features_may_be_tensors(trainer: Any) -> None:
    text = (
        text_of(SIGMOID)
        + """
def features(rows):
    return torch.tensor(rows.select("b", "n", pl.col("a").fill_null(0.0)).to_numpy(), dtype=torch.float32)
"""
    )
    version = trainer.version(text, frame("binary"))
    verdict = read_verdict(version)
    assert verdict is not None and "its features are a Tensor" in verdict.why
    other = trainer.version(text_of(SIGMOID), frame("binary"))
    rows = odd("binary").with_columns(b=pl.col("b").fill_null(1.0))
    np.testing.assert_allclose(Predictor.load(version).predict(rows), Predictor.load(other).predict(rows), atol=1e-6)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("nn.Threshold(9.0, 9.0)", "a probability is within 0 and 1"),
        ("First()", "forward returned 1 rows for"),
        ("Words()", "its feature city holds no numbers"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(last: str, words: str, trainer: Any) -> None:
    columns = '"b", "city"' if last == "Words()" else '"b", "n"'
    text = f"""
import torch
from torch import nn

class First(nn.Module):
    def forward(self, x):
        return x[:1, 0]

class Words(First):
    pass

def features(rows):
    return rows.select({columns})

def model(features, y):
    return {last}
"""
    result = trainer.train(text, frame("binary"))
    assert not result["ok"] and result["error"]["kind"] == "project"
    assert words in result["error"]["message"]


def test_a_graph_that_says_something_else_is_found(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    right = torch.onnx.export

    class Wrong(torch.nn.Module):
        def __init__(self, module: Any) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Any) -> Any:
            return self.module(x) * 0.9999

    monkeypatch.setattr(torch.onnx, "export", lambda module, *args, **more: right(Wrong(module), *args, **more))
    verdict = read_verdict(trainer.version(text_of(SIGMOID), frame("binary")))
    assert verdict is not None and "untouched rows" in verdict.why


def test_without_its_exporter_it_says_what_is_missing() -> None:
    script = """
import sys
sys.modules["onnxscript"] = None
import torch
from orrery.training.refusal import NotConvertible
from orrery.training.torch_graph import Ending, exported
try:
    exported(Ending(torch.nn.Linear(2, 1)), 2, 20)
except NotConvertible as error:
    print(error.what)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "onnxscript is not installed, which PyTorch exports with", done.stderr[-500:]


def test_the_model_that_was_trained_is_not_touched_by_the_export(trainer: Any, tmp_path: Path) -> None:
    import torch

    from orrery.training.torch_graph import Ending, exported

    module = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Dropout(0.5)).train()
    exported(Ending(module), 2, 20)
    assert module.training and all(parameter.requires_grad for parameter in module.parameters())
