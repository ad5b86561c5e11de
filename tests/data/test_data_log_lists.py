"""Lists of the log's rows are stored as they were, whatever their lengths and whoever has none."""

from __future__ import annotations

import polars as pl
import pytest

from orrery.data.lake import Lake
from orrery.data.log import Piece, PredictionLog


@pytest.mark.parametrize(
    "outputs",
    [
        [[0.25], [0.5], [1.0]],
        [[0.2, 0.8], [0.1, 0.9], [0, 1]],
        [[0.2, 0.8], None, [0.5]],
        [None, None, None],
        [[], [], []],
        [[], None, [1]],
    ],
)
def test_outputs_come_back_as_they_were_shipped(tmp_path: object, outputs: list[list[float] | None]) -> None:
    log = PredictionLog(Lake(str(tmp_path)), "tides")
    broken = [["wind"], None, ["moon", "wind"]]
    rows = len(outputs)
    columns = {
        "_id": [f"r{row}" for row in range(rows)],
        "_at": [1_700_000_000_000_000 + row for row in range(rows)],
        "_version": [1] * rows,
        "_role": ["champion"] * rows,
        "_output": outputs,
        "_broken": broken,
    }
    log.ship([Piece("segment", 10, "production", columns)])
    found = log.rows("production", None, None).sort("_id").collect()
    assert found["_output"].to_list() == outputs and found["_output"].dtype == pl.List(pl.Float64)
    assert found["_broken"].to_list() == broken
