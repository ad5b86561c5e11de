"""Plain FastAPI, as its documentation shows it: a checked body, a table, ``predict_proba``."""

import os
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

model = pickle.loads(Path(os.environ["MODEL"], "model.pkl").read_bytes())
app = FastAPI()


class Split(BaseModel):
    columns: list[str]
    data: list[list[Any]]


class Asked(BaseModel):
    dataframe_split: Split


@app.post("/invocations")
def predict(asked: Asked) -> dict[str, list[float]]:
    frame = pd.DataFrame(asked.dataframe_split.data, columns=asked.dataframe_split.columns)
    return {"predictions": model.predict_proba(frame)[:, 1].tolist()}
