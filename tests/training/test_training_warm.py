"""A training and a model process that are forked do what executed ones do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pytest

from orrery.errors import ProjectFailed
from orrery.pipeline.client import ModelProcess
from orrery.workers.contained import Contained, Limits, run, spawn
from orrery.workers.warm import WarmStarts

PROGRAMS = TRAINING, HOST = "orrery.training.runner", "orrery.pipeline.host"
LIMITS = Limits(wall_seconds=120)
ENV = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MODEL = """
    import polars as pl
    from sklearn.ensemble import HistGradientBoostingRegressor
    from scale import FACTOR

    def features(rows):
        return rows.select(pl.col("a") * FACTOR, pl.col("b"))

    def model(features, y):
        return HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=5, random_state=0).fit(features, y)
"""
NUMBERS = np.random.default_rng(7).random((400, 2))
FRAME = pl.DataFrame({"a": NUMBERS[:, 0], "b": NUMBERS[:, 1], "y": NUMBERS[:, 0] - 0.3 * NUMBERS[:, 1] ** 2})


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[WarmStarts]:
    made = WarmStarts(tmp_path / "imported", PROGRAMS)
    yield made
    made.close()


def trained(trainer: Any, factor: float, warm: WarmStarts) -> tuple[Path, dict[str, Any]]:
    job = trainer.job(MODEL, FRAME, "regression", files={"scale.py": f"FACTOR = {factor}"})
    finished = run(
        [sys.executable, "-m", TRAINING, job],
        cwd=trainer.folder,
        env=ENV,
        limits=LIMITS,
        expects=trainer.out / "result.json",
        warm=warm,
    )
    assert finished.ok, finished
    result: dict[str, Any] = json.loads((trainer.out / "result.json").read_text())
    assert result["ok"], result
    return trainer.out, result


def host(artifact: Path, warm: WarmStarts, began: list[Contained]) -> ModelProcess:
    argv = [sys.executable, "-m", HOST, str(artifact), "--which", "probe"]
    pipe = subprocess.PIPE

    def launch(printed: IO[bytes]) -> Contained:
        began.append(
            spawn(argv, cwd=artifact, env=ENV, limits=LIMITS, stdin=pipe, stdout=pipe, stderr=printed, warm=warm)
        )
        return began[-1]

    return ModelProcess(launch)


def test_forked_programs_do_what_executed_ones_do(trainer: Any, warm: WarmStarts) -> None:
    first, executed = trained(trainer, 1.0, warm)
    known = json.loads((warm.place(sys.executable) / f"{TRAINING}.json").read_text())
    assert warm.pids == [] and {"sklearn", "polars"} <= set(known), "it was executed, and said what it imported"
    assert not any(name.partition(".")[0] in ("scale", "pipeline") for name in known), "and nothing of the project"
    second, forked = trained(trainer, 1.0, warm)
    assert len(warm.pids) == 1
    assert forked["metrics"] == executed["metrics"]
    expected = np.load(first / "probe_output.npy")
    assert np.load(second / "probe_output.npy").tobytes() == expected.tobytes()

    untouched = pl.read_parquet(first / "holdout.parquet")
    changed, _ = trained(trainer, -1.0, warm)
    output = np.load(changed / "probe_output.npy")
    assert output.tobytes() != expected.tobytes()
    began: list[Contained] = []
    with host(changed / "artifact", warm, began) as process:
        assert began[0].forked
        assert process.predict(untouched).tobytes() == output.tobytes()
        process.load(first / "artifact", "probe")
        assert process.predict(untouched).tobytes() == expected.tobytes()

    with host(changed / "artifact", warm, began) as process, pytest.raises(ProjectFailed, match="killed by signal 9"):
        os.kill(began[1].pid, signal.SIGKILL)
        process.predict(untouched)
    assert len(os.listdir(f"/proc/{warm.pids[0]}/task")) == 1
