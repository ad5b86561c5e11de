"""Model processes are forked from one that has imported their libraries: they answer the same, and are back sooner."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from training.conftest import Trainer

pytestmark = pytest.mark.slow

MODEL = """
from sklearn.linear_model import LogisticRegression

def features(rows):
    return rows.select((rows["a"] * FACTOR).alias("a"), rows["b"].map_elements(abs, return_dtype=float))

def model(features, y):
    return LogisticRegression().fit(features, y)
"""
NUMBERS = np.random.default_rng(5).normal(size=(120, 2))
ROWS = pl.DataFrame({"a": NUMBERS[:, 0], "b": NUMBERS[:, 1], "y": NUMBERS[:, 0] > NUMBERS[:, 1]})
ROW = {"a": 0.5, "b": -1.0}


def below(served: Any, module: str) -> list[psutil.Process]:
    """Return the processes of the server that run a module: not guardians, whose module is a file."""
    found = []
    for one in psutil.Process(served.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended at this moment
            found += [one] if module in one.cmdline() else []
    return found


def replaced(served: Any, old: psutil.Process) -> psutil.Process:
    old.kill()
    served.until(lambda: [one for one in below(served, "orrery.pipeline.host") if one.pid != old.pid], 60)
    served.until(lambda: served.http.get("/v2/health/ready").status_code == 200, 60)
    (new,) = below(served, "orrery.pipeline.host")
    return new


def forked_from(process: psutil.Process) -> psutil.Process:
    guardian = process.parent()
    assert guardian is not None and guardian.parent() is not None
    return guardian.parent()


def test_a_model_process_is_forked_and_answers_the_same(served: Any) -> None:
    server = served()
    trainer = Trainer(server.folder)
    one, two = (trainer.version(f"FACTOR = {factor}\n{MODEL}", ROWS) for factor in (1.0, -3.0))
    slot = {**server.slot(1), "task": "binary", "timeout": 60.0}
    try:
        server.start("warm")
        server.assign({**slot, "artifact": str(one)})
        server.until(lambda: server.http.get("/v2/health/ready").status_code == 200, 60)
        said = server.predict(ROW).json()["probability"]
        (first,) = below(server, "orrery.pipeline.host")
        assert below(server, "orrery.workers.fork_server") == [], "nothing was known of it, so it was executed"

        second = replaced(server, first)
        (known,) = (server.home / "cache" / "imported").glob("*/orrery.pipeline.host.json")
        assert "sklearn" in json.loads(known.read_text())
        (libraries,) = below(server, "orrery.workers.fork_server")
        assert forked_from(second) == libraries
        assert server.predict(ROW).json()["probability"] == said

        libraries.kill()
        assert server.predict(ROW).json()["probability"] == said, "it lives without the process it was forked from"
        third = replaced(server, second)
        assert server.predict(ROW).json()["probability"] == said

        server.assign({**slot, "version": 2, "artifact": str(two)})
        server.until(lambda: server.predict(ROW).json()["probability"] != said, 60)
        (fourth,) = server.until(lambda: [p for p in below(server, "orrery.pipeline.host") if p != third], 30)
        assert forked_from(fourth) == forked_from(third) != libraries

        everything = psutil.Process(server.process.pid).children(recursive=True)
        assert len(everything) >= 3
        server.kill()
        _, alive = psutil.wait_procs(everything, timeout=10)
        assert alive == [], "nothing is left of a killed server"
    finally:
        server.close()
