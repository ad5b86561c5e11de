"""What Evidently's drift preset costs: ``python evidently_rows.py OUT.json SEED ROWS``."""

import time
import warnings

started = time.process_time()
import drift_rows  # noqa: E402
import pandas as pd  # noqa: E402
from evidently import Report  # noqa: E402
from evidently.presets import DataDriftPreset  # noqa: E402

imported = time.process_time() - started
warnings.simplefilter("ignore")


def look(reference: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """It keeps nothing: every look takes the whole reference again."""
    found = []
    for one in Report([DataDriftPreset()]).run(rows, reference).dict()["metrics"]:
        column = one.get("config", {}).get("column")
        if column is not None:
            by = one["config"]
            smaller = "p_value" in by["method"]
            value = float(one["value"])
            if (value < by["threshold"]) if smaller else (value >= by["threshold"]):
                found.append(column)
    return found


if __name__ == "__main__":
    drift_rows.measure(lambda reference: reference, look, look, pd.DataFrame, imported, times=1)
