"""How functions become steps, and what is said when they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orrery.errors import NotFound, NotUnderstood, ProjectFailed
from orrery.pipeline.pipeline import Input, StepReport, load_module

FLIGHTS = {"flights": Input([3, 4], "v3"), "late": Input([0, 1], "v3")}
PIPELINE = """
    from math import sqrt
    from collections import Counter

    def model(features, late, *, depth: int = 6, seed: int = 0):
        '''Fit it.

        More words.'''
        return (features, late, depth, seed)

    def features(flights):
        return [sqrt(each) for each in flights]

    def report(model, /, *, seed=1):
        return model

    def _helper():
        return Counter()
"""


def test_arguments_join_functions_datasets_and_parameters(project: Any) -> None:
    pipeline = project.write(PIPELINE).pipeline(FLIGHTS)
    assert pipeline.steps == ("features", "model", "report")
    assert pipeline.needs("features") == ("flights", "features")
    assert pipeline.needs("model") == ("flights", "late", "features", "model")
    assert pipeline.parameters() == {"model": {"depth": 6, "seed": 0}, "report": {"seed": 1}}
    described = {step.name: step for step in pipeline.describe()}
    assert described["model"].needs == ("features", "late")
    assert described["model"].doc == "Fit it."


def test_a_run_gives_values_reports_and_lineage(project: Any) -> None:
    project.write(PIPELINE)
    seen: list[StepReport] = []
    pipeline = project.pipeline(FLIGHTS)
    result = pipeline.run("report", FLIGHTS, {"seed": 5}, project.cache, "e", seen.append)
    assert result.values["report"] == ([3**0.5, 2.0], [0, 1], 6, 5)
    assert seen == result.reports
    features, model, _ = result.reports
    assert features.inputs == {"flights": "v3"}
    assert model.inputs == {"features": features.output_digest, "late": "v3"}
    assert model.parameters == {"depth": 6, "seed": 5}
    assert model.seconds > 0 and model.cpu_seconds > 0
    assert [each.name for each in pipeline.run("features", FLIGHTS, {}, project.cache, "e").reports] == ["features"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def a(fligths):\n    return 1", r"step a needs fligths, and nothing has that name\. Nearest: flights\."),
        ("def a(b):\n    return 1\ndef b(a):\n    return 1", r"in a circle: (a -> b -> a|b -> a -> b)"),
        ("def a(a):\n    return 1", r"in a circle: a -> a"),
        ("def flights():\n    return 1", r"flights is a function of the pipeline and also a dataset"),
        ("def a(*, late=1):\n    return 1", r"late of a has a default.* late is also a dataset"),
        ("def a(*rows):\n    return 1", r"step a takes \*rows"),
        ("async def a():\n    return 1", r"step a is asynchronous"),
        ("def a():\n    yield 1", r"step a is asynchronous or a generator"),
        ("x = 1", r"has no steps"),
    ],
)
def test_what_cannot_be_joined_is_said_with_names(project: Any, text: str, message: str) -> None:
    with pytest.raises(NotUnderstood, match=message):
        project.write(text).pipeline(FLIGHTS)


def test_unknown_targets_parameters_and_missing_inputs_are_said(project: Any) -> None:
    project.write(PIPELINE)
    with pytest.raises(NotUnderstood, match=r"no step modell\. Nearest: model\."):
        project.run("modell", FLIGHTS)
    with pytest.raises(NotUnderstood, match=r"parameter dept\. Nearest: depth\."):
        project.run("model", FLIGHTS, dept=3)
    with pytest.raises(NotUnderstood, match="late is needed for model and was not supplied"):
        project.pipeline(FLIGHTS).run("model", {"flights": FLIGHTS["flights"]}, {}, project.cache, "e")


def test_a_project_that_cannot_be_loaded_fails_as_itself(project: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no pipeline\.py in"):
        load_module(project.root)
    with pytest.raises(NotFound, match="no folder"):
        load_module(tmp_path / "nowhere")
    for text, message in {
        "import cleaning": r"ValueError: bad \(cleaning.py, line 2\)",
        "def a(:\n    pass": "SyntaxError",
        "import not_installed_anywhere": "not_installed_anywhere",
        "raise SystemExit(3)": "SystemExit: 3",
    }.items():
        project.write(text).write("\nraise ValueError('bad')", "cleaning.py")
        with pytest.raises(ProjectFailed, match=message):
            load_module(project.root)


def test_a_pipeline_may_be_in_a_package(project: Any) -> None:
    project.write("from .inner import value\ndef step():\n    return value()", "package/pipe.py")
    project.write("def value():\n    return 7", "package/inner.py").write("", "package/__init__.py")
    module = load_module(project.root, "package.pipe")
    assert module.step() == 7
