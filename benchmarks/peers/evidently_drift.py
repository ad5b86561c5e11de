"""Evidently's default on the days of ``drift_days``: ``python evidently_drift.py OUT.json SEED LOOKS CHANGED``."""

from __future__ import annotations

import json
import sys
import warnings

import drift_days
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset


def look(reference: pd.DataFrame, day: pd.DataFrame) -> dict[str, int]:
    """Columns that drifted, and whether the data set did (half of the columns)."""
    found = Report([DataDriftPreset()]).run(day, reference).dict()["metrics"]
    count = next(one["value"] for one in found if "DriftedColumnsCount" in str(one))
    return {"columns": int(count["count"]), "dataset": int(count["share"] >= 0.5)}


def main(out: str, seed: int, looks: int, changed: int) -> None:
    warnings.simplefilter("ignore")
    reference = pd.DataFrame(drift_days.reference(seed))
    found: dict[str, list[dict[str, int]]] = {}
    for kind in ("quiet", "wobble", *drift_days.CHANGES):
        number = looks if kind in ("quiet", "wobble") else changed
        found[kind] = [look(reference, pd.DataFrame(drift_days.days(seed, kind, 0, i))) for i in range(number)]
        print("evidently", kind, found[kind], flush=True)
    with open(out, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
