"""BentoML, as its documentation shows it."""

import os
import pickle
from pathlib import Path
from typing import Any

import bentoml
import pandas as pd


@bentoml.service(workers=1)
class Scorer:
    def __init__(self) -> None:
        self.model = pickle.loads(Path(os.environ["MODEL"], "model.pkl").read_bytes())

    @bentoml.api(route="/invocations")
    def invocations(self, dataframe_split: dict[str, Any]) -> dict[str, list[float]]:
        frame = pd.DataFrame(dataframe_split["data"], columns=dataframe_split["columns"])
        return {"predictions": self.model.predict_proba(frame)[:, 1].tolist()}
