"""What whylogs' profiles and its drift scores cost: ``python whylogs_rows.py OUT.json SEED ROWS``."""

import time
import warnings
from typing import Any

started = time.process_time()
import drift_rows  # noqa: E402
import pandas as pd  # noqa: E402
import whylogs  # noqa: E402
from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores  # noqa: E402

imported = time.process_time() - started
warnings.simplefilter("ignore")


def begin(reference: pd.DataFrame) -> dict[str, Any]:
    return {"reference": whylogs.log(pandas=reference).view(), "day": None}


def look(state: dict[str, Any], rows: pd.DataFrame) -> list[str]:
    """Profiles merge, so the rows of a day are counted once."""
    new = whylogs.log(pandas=rows).view()
    state["day"] = new if state["day"] is None else state["day"].merge(new)
    scores = calculate_drift_scores(target_view=state["day"], reference_view=state["reference"], with_thresholds=True)
    return [column for column, one in scores.items() if one and one["drift_category"] == "DRIFT"]


if __name__ == "__main__":
    drift_rows.measure(begin, look, look, pd.DataFrame, imported)
