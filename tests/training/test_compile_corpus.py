"""Each kind of pipeline is compiled and says the same, or is refused with the reason; a wrong graph is found out."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from orrery.pipeline.compiled import Compiled, Unproven
from orrery.pipeline.predictor import Predictor
from orrery.pipeline.verdict import Verdict, read_verdict
from orrery.training import compile, runner, trees
from orrery.training.functions import FUNCTIONS
from orrery.training.proof import TOLERANCE
from training.compile_check import check, frame, odd
from training.compile_corpus import CASES, IMPORTS, MATRIX, NUMBERS, ROWS, Case
from training.torch_corpus import TORCH

PAGE = (Path(__file__).parents[2] / "docs" / "compile.md").read_text()
LINES = dict(re.findall(r"^\| (.+?) \| (compiled|refused: .+?) \|$", PAGE, re.M))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Libraries that start a thread for each core, many times over, keep each other waiting on small data."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else []) for case in CASES]
)
def test_it_is_equal_or_refused_with_the_reason(case: Case, trainer: Any) -> None:
    if case.needs and importlib.util.find_spec(case.needs) is None:
        pytest.skip(f"{case.needs} is not installed: pip install 'orrery-ml[boosting]'")
    check(case, trainer)


def test_the_page_tells_what_becomes_of_each_kind() -> None:
    assert list(LINES) == [case.name for case in (*CASES, *TORCH)]
    for case in (*CASES, *TORCH):
        assert (LINES[case.name] == "compiled") == (not case.refused)
        assert case.refused in LINES[case.name]
    assert sum(line == "compiled" for line in LINES.values()) >= 25
    for function in FUNCTIONS:
        assert f"`{function.__name__}`" in PAGE
    for value in {*TOLERANCE.values()}:
        assert f"{value:g}" in PAGE


def test_many_columns_of_which_each_refuses_something(trainer: Any) -> None:
    random = np.random.default_rng(3)
    wide = pl.DataFrame({f"c{at}": random.normal(size=400) for at in range(64)})
    wide = wide.with_columns(city=pl.Series(random.choice(["x", "yy"], 400)), y=wide["c0"] + wide["c63"] > 0)
    numbers = "[f'c{at}' for at in range(64)]"
    fit = f"make_pipeline(make_column_transformer((fill, {numbers}), (hot, text)), LogisticRegression())"
    version = trainer.version(IMPORTS + ROWS.replace("{fit}", fit), wide)
    verdict, compiled = read_verdict(version), Compiled.load(version)
    assert verdict is not None and verdict.proof is not None and compiled is not None, verdict
    # Those in which not all is tried are answered for ordinary values only; texts are tried first.
    row: dict[str, list[Any]] = {name: [0.5] for name in wide.columns if name != "y"} | {"city": ["never seen"]}
    for answered in ({"c3": [1e12]}, {"c3": [None], "c63": [None]}):
        assert compiled.predict(row | answered, 1).shape == (1, 1)
    with pytest.raises(Unproven):
        compiled.predict(row | {"c63": [1e12]}, 1)


BOOSTED = IMPORTS + MATRIX.replace("{fit}", "HistGradientBoostingClassifier(max_iter=4)")


def faulty(trainer: Any, monkeypatch: pytest.MonkeyPatch, name: str, change: Any) -> Verdict:
    """Train with a converter that makes a mistake; the verdict on what it made."""
    right = getattr(trees.Forest, name)
    monkeypatch.setattr(trees.Forest, name, lambda forest, *given: right(forest, *change(*given)))
    verdict = read_verdict(trainer.version(BOOSTED, frame("binary")))
    assert verdict is not None
    return verdict


def test_a_wrong_leaf_is_found_on_untouched_rows(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = faulty(
        trainer, monkeypatch, "leaf", lambda tree, node, *values: (tree, node, *((o, v * 1.001) for o, v in values))
    )
    assert re.fullmatch(r"its ONNX form differs by up to .+ on \d+ of \d+ untouched rows", verdict.why)


def test_a_null_that_goes_the_wrong_way_is_found(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = faulty(trainer, monkeypatch, "split", lambda *given: (*given[:-1], not given[-1]))
    assert "untouched rows" in verdict.why


def test_a_value_that_is_not_rounded_is_found_beside_thresholds(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forest = IMPORTS + NUMBERS.replace("{fit}", "RandomForestClassifier(10)")
    right = read_verdict(trainer.version(forest, frame("binary")))
    monkeypatch.setattr(trees.Builder, "single", lambda build, source: source)
    other = read_verdict(trainer.version(forest, frame("binary")))
    # Found out in double precision, it is compiled in single precision, where all values are rounded.
    assert right is not None and other is not None
    assert (right.why, right.precision, other.why, other.precision) == ("", "double", "", "single")


def test_what_differs_for_nulls_alone_is_left_to_python(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = trees.Forest.split
    monkeypatch.setattr(trees.Forest, "split", lambda forest, *given: right(forest, *given[:-1], not given[-1]))
    tree = IMPORTS + NUMBERS.replace("{fit}", "DecisionTreeClassifier(max_depth=6)")
    version = trainer.version(tree, frame("binary"))
    verdict, compiled = read_verdict(version), Compiled.load(version)
    assert verdict is not None and verdict.proof is not None and compiled is not None
    assert "nulls" in verdict.proof.left_out[0]
    with pytest.raises(Unproven):
        compiled.of_features({"b": np.array([np.nan]), "n": np.array([3]), "a": np.array([0.5])}, 1)


def test_a_converter_that_never_ends_is_interrupted(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: Any) -> None:
        while True:
            pass

    monkeypatch.setattr(compile, "convert", endless)
    monkeypatch.setattr(compile, "PATIENCE", 2)
    monkeypatch.setattr(runner, "COMPILE_SECONDS", 0.5)
    version = trainer.version(BOOSTED, frame("binary"))
    verdict = read_verdict(version)
    assert verdict is not None and verdict.why == "it took more than 1 s of processor time"
    assert Predictor.load(version).predict(odd("binary")).shape == (200, 1)
