"""What NannyML's univariate drift costs: ``python nannyml_rows.py OUT.json SEED ROWS METHOD METHOD``.

The methods are one for numbers and one for categories.
"""

import sys
import time
import warnings

started = time.process_time()
import drift_rows  # noqa: E402
import nannyml  # noqa: E402
import pandas as pd  # noqa: E402

imported = time.process_time() - started
warnings.simplefilter("ignore")


def begin(reference: pd.DataFrame) -> nannyml.UnivariateDriftCalculator:
    return nannyml.UnivariateDriftCalculator(
        column_names=list(reference),
        continuous_methods=[sys.argv[4]],
        categorical_methods=[sys.argv[5]],
    ).fit(reference)


def look(calculator: nannyml.UnivariateDriftCalculator, rows: pd.DataFrame) -> list[str]:
    frame = calculator.calculate(rows).filter(period="analysis").to_df()
    return [column for column in rows if frame[column].xs("alert", axis=1, level=-1).to_numpy().any()]


if __name__ == "__main__":
    drift_rows.measure(begin, look, look, pd.DataFrame, imported)
