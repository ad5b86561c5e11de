"""Every gate passes the shipped suite by existing, finds its own flaws only, and the suite fails those that do not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery import gates
from orrery import spec as specs
from orrery.gates import quality
from orrery.gates.judge import GATES, Gate, gates_of, in_words, judge, passed
from orrery.gates.verdict import Evidence, Verdict
from orrery.testing.gate_contract import BROKEN, FEW, FLAWS, Candidate, check_gate, simulated_gates, walk_gate

REFUSES = {
    "brier": {"worse"},
    "auc": {"worse"},
    "segments": {"worse", "group"},
    "search": {"worse", "group", "hidden"},
    "latency": {"slow"},
    "skew": {"skewed"},
    "row_wise": {"beside", "target"},
}
"""For each gate the flaws that it must refuse; every other one is none of its business: there it stays quiet."""
ALWAYS_TELL = {"row_wise"}
"""About the features' source, not about a number of rows."""


@pytest.mark.parametrize("name", simulated_gates())
def test_it_holds_what_a_gate_must_and_refuses_its_own_flaws_only(name: str) -> None:
    assert name in REFUSES, f"say which flaws the gate {name} must refuse, and simulate one in gate_contract"
    refused = walk_gate(simulated_gates()[name], always_tells=name in ALWAYS_TELL)
    assert refused == REFUSES[name]


@pytest.mark.parametrize("flaw", [BROKEN, *FLAWS])
def test_each_flaw_is_refused_by_all_gates_together_and_said_in_words(flaw: str) -> None:
    verdicts = judge(Candidate(100).evidence(flaw))
    expected = {name for name, flaws in REFUSES.items() if flaw in flaws} or {"output"}
    assert {name for name, one in verdicts.items() if one.verdict == "refused"} == expected
    assert not passed(verdicts) and all(f"{name}: " in in_words(verdicts) for name in expected)
    assert passed(judge(Candidate(100).evidence()))  # the control: the same candidate without it


def test_before_all_gates_stands_the_one_about_numbers() -> None:
    found = quality.outputs(Candidate(1).evidence(BROKEN))
    assert found is not None and found.verdict == "refused"
    assert all(quality.outputs(Candidate(1).evidence(flaw)) is None for flaw in ("", *FLAWS))


def test_too_little_is_said_by_each_gate_and_never_passes_in_silence() -> None:
    few = Candidate(1).evidence(rows=FEW)
    verdicts = judge(few)
    first, *others = gates_of(few.spec)
    assert not passed(verdicts) and verdicts[first].verdict == "refused"  # no metric can tell
    silent = {name for name in others if verdicts[name].verdict != "insufficient"}
    assert silent == ALWAYS_TELL and verdicts["row_wise"].verdict == "passed"
    enough = Candidate(1).evidence()
    part = msgspec.structs.replace(enough, latencies=few.latencies, replayed=few.replayed)
    said = in_words(judge(part))
    assert "Passed 5 of 7" in said and "Insufficient data: latency, skew." in said


def _written() -> Iterator[tuple[str, Any]]:
    """Yield every function of the package that takes evidence and nothing else, and returns a verdict."""
    for module in pkgutil.iter_modules(gates.__path__, f"{gates.__name__}."):
        for name, one in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction):
            asks = inspect.get_annotations(one)
            answer = str(asks.pop("return", ""))
            if list(asks.values()) == ["Evidence"] and answer in ("Verdict", "Verdict | None"):
                yield f"{one.__module__}.{name}", one


def test_what_is_written_as_a_gate_is_asked() -> None:
    written = {one for _, one in _written()}
    assert len(written) >= 6 and written - {quality.outputs} == set(GATES.values())


MARGINS = {"log_loss": 0.05, "brier": 0.02, "zero_one": 0.05, "accuracy": 0.05, "auc": 0.05, "r2": 0.05}


def answered(task: str, rows: int, seed: int = 0) -> tuple[specs.Spec, dict[str, Any]]:
    """Return rows of any task with the true answers, some as good, and answers that have nothing to do with them."""
    random = np.random.default_rng(seed)
    model = {"name": "tides", "task": task, "target": "y"}
    spec = specs.from_dict({"model": model, "data": {"tides": "tides"}})
    if task == "regression":
        labels = random.normal(size=rows)
        good = [(labels + random.normal(0, 0.3, rows))[:, None] for _ in range(2)]
    else:
        chance = random.dirichlet(np.full(2 if task == "binary" else 3, 0.4), rows)
        labels = (random.random((rows, 1)) > chance.cumsum(axis=1)).sum(axis=1).clip(0, chance.shape[1] - 1)
        shown = chance[:, 1:] if task == "binary" else chance
        spread = [np.clip(shown + random.normal(0, 0.01, shown.shape), 0.01, 0.99) for _ in range(2)]
        good = [one / one.sum(axis=1, keepdims=True) if task == "multiclass" else one for one in spread]
    about = {"spec": spec, "rows": pl.DataFrame({"row": np.arange(rows)}), "labels": labels.astype(float)}
    return spec, {**about, "good": good[0], "same": good[1], "bad": random.permutation(good[0])}


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in specs.METRICS.items() for name in names])
def test_every_metric_of_every_task_passes_refuses_and_cannot_tell(task: str, name: str) -> None:
    """Against the champion, for there the truth needs no limit in the unit of a metric."""

    def evidence(side: str, rows: int = 2000) -> Evidence:
        _, about = answered(task, rows)
        shown = {key: about[key] for key in ("spec", "rows", "labels")}
        return Evidence(**shown, outputs=about[side], champion=about["same"])

    limit = specs.Limit(versus="champion", margin=MARGINS.get(name, 0.1))
    check_gate(
        lambda one: quality.judge(name, limit, one),
        passing=evidence("good"),
        refusing=evidence("bad"),
        insufficient=evidence("bad", quality.LEAST - 1),
    )


def _says(verdict: str) -> Verdict:
    return Verdict(verdict=verdict, why="It is 1.", numbers={"one": 1})  # type: ignore[arg-type]


def guesses(evidence: Evidence) -> Verdict | None:
    """Judge by the bare mean, as most tools do."""
    assert evidence.champion is not None
    losses = [((one[:, 0] - evidence.labels) ** 2).mean() for one in (evidence.outputs, evidence.champion)]
    return _says("refused" if losses[0] > losses[1] else "passed")


def never_silent(evidence: Evidence) -> Verdict | None:
    """Pass what is too little to tell."""
    found = GATES["segments"](evidence)
    return _says("passed") if found is None or found.verdict == "insufficient" else found


ASKED: list[int] = []


def fickle(evidence: Evidence) -> Verdict | None:
    """Say another number each time."""
    ASKED.append(len(evidence.rows))
    return Verdict(verdict="passed", why=f"It was asked {len(ASKED)} times.", numbers={"times": len(ASKED)})


@pytest.mark.parametrize(
    ("gate", "complaint"),
    [
        (guesses, "sound candidates"),
        (lambda _: _says("passed"), "refuses none"),
        (lambda _: None, "refuses none"),
        (never_silent, "of 30 rows it says 'passed'"),
        (fickle, "another verdict"),
    ],
)
def test_the_suite_finds_a_gate_that_does_not(gate: Gate, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        walk_gate(gate)
