"""What MLflow calls to load a version: ``mlflow.pyfunc.load_model(folder).predict(frame)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from orrery.pipeline.predictor import Predictor

if TYPE_CHECKING:
    import numpy.typing as npt


class PyfuncModel:
    """A version as MLflow calls it."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """Predict for a frame or a mapping of columns: one number for each row, or one for each class."""
        if not isinstance(model_input, pl.DataFrame):
            is_pandas = type(model_input).__module__.partition(".")[0] == "pandas"
            model_input = pl.from_pandas(model_input) if is_pandas else pl.DataFrame(model_input)
        output = self._predictor.predict(model_input)
        return output[:, 0] if self._predictor.manifest.width == 1 else output


def _load_pyfunc(path: str) -> PyfuncModel:
    return PyfuncModel(Predictor.load(path))
