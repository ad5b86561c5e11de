"""What orrery's feature drift costs, from the log's frame on: ``python orrery_rows.py OUT.json SEED ROWS``."""

import json
import sys
import time
from typing import Any

started = time.process_time()
import drift_rows  # noqa: E402
import polars as pl  # noqa: E402

from orrery.data.arrays import counted  # noqa: E402
from orrery.stats import FeatureDrift, TableSketch  # noqa: E402

imported = time.process_time() - started


def begin(reference: pl.DataFrame) -> dict[str, Any]:
    sketch = TableSketch.fit(counted(reference, reference.columns))
    return {"drift": FeatureDrift(sketch), "reference": sketch, "day": sketch.empty_like()}


def look(state: dict[str, Any], rows: pl.DataFrame) -> list[str]:
    """One look at new rows, and their sketch added to that of the day."""
    new = state["reference"].empty_like().add(counted(rows, rows.columns))
    state["day"] = state["day"].merge(new)
    found = state["drift"].update(new)
    return [name for name, share in found.blame if found.alarm and share > 0.01]


def frame(columns: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema_overrides={name: pl.String for name in columns if name.startswith("c")})


if __name__ == "__main__":
    kept: dict[str, Any] = {}

    def begun(reference: pl.DataFrame) -> dict[str, Any]:
        kept.update(begin(reference))
        return kept

    drift_rows.measure(begun, look, look, frame, imported)
    with open(sys.argv[1]) as file:
        said = json.load(file)
    size = len(kept["reference"].to_bytes()) + len(kept["day"].to_bytes()) + len(json.dumps(kept["drift"].to_state()))
    with open(sys.argv[1], "w") as file:
        json.dump({**said, "state": size}, file)
