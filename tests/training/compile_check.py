"""What must come of compiling a kind of pipeline, on rows that no proof has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from orrery.pipeline.compiled import Compiled
from orrery.pipeline.predictor import Predictor
from orrery.pipeline.verdict import GRAPH, read_verdict
from orrery.training.proof import TOLERANCE, asked
from orrery.training.sight import sight_of
from training.compile_corpus import Case


def frame(task: str, count: int = 700, seed: int = 11) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    a, b, n = random.normal(size=count), random.gamma(2.0, 30.0, count), random.integers(0, 9, count)
    city = random.choice(["x", "yy", "z z"], count, p=[0.5, 0.3, 0.2])
    text = [" ".join(random.choice(["late", "early", "rain", "Wind"], 4)) for _ in range(count)]
    score = a + (city == "x") + np.log(b) - 3.5 + 0.1 * n + 0.5 * random.normal(size=count)
    y = {"binary": score > 0.5, "multiclass": np.digitize(score, [0, 1.2]), "regression": 10 * np.exp(score / 4)}[task]
    rows = pl.DataFrame({"a": a, "b": b, "n": n, "city": city, "text": text, "y": y})
    row = pl.int_range(count)
    return rows.with_columns(
        a=pl.when(row % 13 > 0).then("a"),
        city=pl.when(row % 17 > 0).then("city"),
        text=pl.when(row % 19 > 0).then("text").otherwise(pl.lit("")),
    )


def odd(task: str) -> pl.DataFrame:
    """Rows that no proof has seen: other values, more nulls, and texts that were never trained with."""
    rows = frame(task, 200, seed=99).drop("y")
    row = pl.int_range(200)
    return rows.with_columns(
        a=pl.when(row % 5 > 0).then("a"),
        b=pl.when(row % 7 > 0).then(pl.col("b") * 3),
        city=pl.when(row % 6 == 0).then(pl.lit("Ümlaut\n")).otherwise("city"),
    )


def check(case: Case, trainer: Any) -> None:
    """It is compiled and says the same, or is refused with the reason."""
    version = trainer.version(case.text, frame(case.task), case.task)
    verdict, compiled = read_verdict(version), Compiled.load(version)
    assert verdict is not None
    if case.refused:
        assert case.refused in verdict.why and compiled is None and not (version / GRAPH).exists()
        assert verdict.sentence().startswith("Served by its own Python: ")
        return
    assert (verdict.why, compiled is None) == ("", False)
    own = Predictor.load(version)
    sight = sight_of(own, odd(case.task))
    said = asked(sight.own, sight.real, own.manifest.width)
    found = asked(lambda rows: sight.compiled(compiled, rows), sight.real, own.manifest.width)
    answered, refused = ~np.isnan(found[:, 0]), np.isnan(said[:, 0])
    assert answered.mean() > 0.5 and not (answered & refused).any()
    apart = np.abs(found - said)[answered]
    size = np.maximum(np.abs(said[answered]), np.nanmean(np.abs(said))) if case.task == "regression" else 1.0
    assert (apart / size).max() <= TOLERANCE[case.task]
