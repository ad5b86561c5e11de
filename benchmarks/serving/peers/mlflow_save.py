"""Save a model in MLflow's format, as its users do: ``mlflow_save.py MODEL OUT model|onnx``."""

import pickle
import sys
from pathlib import Path

import mlflow
import pandas as pd


class AsFunction(mlflow.pyfunc.PythonModel):
    """What MLflow has for a model that is of no known library."""

    def __init__(self, model):
        self.model = model

    def predict(self, context, model_input, params=None):
        return pd.DataFrame(self.model.predict_proba(model_input))


def main(source: Path, out: str, flavour: str) -> None:
    if flavour == "onnx":
        import onnx

        mlflow.onnx.save_model(onnx.load(source / "model.onnx"), out, pip_requirements=[])
        return
    model = pickle.loads((source / "model.pkl").read_bytes())
    if hasattr(model, "steps"):
        more = {"serialization_format": "cloudpickle", "pyfunc_predict_fn": "predict_proba"}
        mlflow.sklearn.save_model(model, out, pip_requirements=[], **more)
    else:
        mlflow.pyfunc.save_model(out, python_model=AsFunction(model), pip_requirements=[])


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
