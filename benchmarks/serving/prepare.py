"""What is served and asked: models trained by orrery from real pushes, the same objects for the peers, and requests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(HERE / "project"))

import pipeline  # noqa: E402

KINDS = ("boosting", "logistic", "xgboost", "network", "callable")
SHADOWS = 2
"""Challengers that are trained for the first kind."""
ROWS, BATCH, SINGLES, BATCHES = 8000, 100, 64, 8
POLICY = """
[model]
name = "{kind}"
task = "binary"
target = "bought"
time = "at"
owner = "nora"
[pipeline.params]
kind = "{kind}"
[data]
clients = "clients"
[gates]
holdout = "28d"
latency = {{ p99_ms = 10000 }}
[monitors]
every = "1d"
[triggers]
drift = false
decay = false
"""


@dataclass(frozen=True)
class Prepared:
    """Everything a server needs, in one folder: ``KIND/model.pkl``, ``KIND/model.onnx``, ``slots.json``, bodies."""

    folder: Path
    notes: dict[str, str]
    """What could not be made, and why."""

    def expected(self, kind: str) -> list[float]:
        """What the model itself says of the rows of the first batch."""
        found: list[float] = json.loads((self.folder / kind / "expected.json").read_text())
        return found

    def slots(self) -> dict[str, list[dict[str, Any]]]:
        """Kind to the assigned slots of its versions, as orrery's control plane handed them out."""
        found: dict[str, list[dict[str, Any]]] = json.loads((self.folder / "slots.json").read_text())
        return found

    def bodies(self, form: str, load: str) -> Path:
        """File with one request a line."""
        return self.folder / f"{form}-{load}.txt"


def clients(rows: int, seed: int) -> pl.DataFrame:
    """Made-up clients: eight numbers, four words, and whether they bought."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "age": rng.integers(18, 90, rows).astype(float),
            "income": rng.lognormal(10.0, 0.5, rows).round(2),
            "balance": rng.normal(1000, 800, rows).round(2),
            "visits": rng.poisson(4, rows).astype(float),
            "tenure": rng.exponential(3.0, rows).round(3),
            "distance": rng.gamma(2.0, 5.0, rows).round(3),
            "rating": rng.uniform(1, 5, rows).round(1),
            "discount": rng.choice([0.0, 0.05, 0.1, 0.2], rows),
            "region": rng.choice(["north", "east", "south", "west"], rows),
            "device": rng.choice(["phone", "desk", "tablet"], rows),
            "channel": rng.choice(["search", "mail", "friend", "shop", "radio"], rows),
            "plan": rng.choice(["free", "silver", "gold"], rows, p=[0.7, 0.2, 0.1]),
        }
    )
    score = 0.03 * (frame["age"] - 50) + 0.3 * frame["visits"] - 0.05 * frame["distance"] + 8 * frame["discount"]
    score = score + (frame["plan"] == "gold").cast(pl.Float64) - 1.5
    first = pl.Series(["2026-01-01"]).str.to_datetime().dt.replace_time_zone("UTC")[0]
    return frame.with_columns(
        at=pl.lit(first) + pl.duration(minutes=20) * pl.int_range(rows),
        bought=pl.Series((rng.random(rows) < 1 / (1 + np.exp(-score.to_numpy()))).astype(int)),
    )


def prepare(cache: Path, say: Any = print) -> Prepared:
    """Make everything, or find what the same code made before."""
    texts = [path.read_bytes() for path in sorted([*(ROOT / "src").rglob("*.py"), *HERE.glob("project/*.py")])]
    key = hashlib.sha256(b"\0".join([*texts, Path(__file__).read_bytes()])).hexdigest()[:16]
    folder = cache / "prepared" / key
    notes = folder / "notes.json"
    if not notes.exists():
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        found: dict[str, str] = {}
        artifacts = _train(folder, found, say)
        for kind, artifact in artifacts.items():
            _export(folder, kind, artifact, found)
        _write_bodies(folder)
        if not any(name.startswith("orrery") for name in found):  # what failed is tried again by the next run
            notes.write_text(json.dumps(found, indent=1))
        return Prepared(folder, found)
    return Prepared(folder, json.loads(notes.read_text()))


def _train(folder: Path, notes: dict[str, str], say: Any) -> dict[str, Path]:
    """Push each kind to a running orrery, and keep what it hands out to inference servers; returns the artifacts."""
    import httpx

    from acceptance.support import Platform, fresh_settings, wait

    platform = Platform(fresh_settings(folder / "home"))
    slots: dict[str, list[dict[str, Any]]] = {}
    platform.start()
    try:
        platform.orrery.add_data("clients", clients(ROWS, 1), why="Made-up clients.", actor="nora", key="first")
        pushes = [(kind, 0) for kind in KINDS] + [(KINDS[0], number + 1) for number in range(SHADOWS)]
        for kind, number in pushes:
            say(f"training {kind}, version {number + 1}")
            checkout = folder / "checkout" / kind
            if not checkout.exists():
                shutil.copytree(HERE / "project", checkout, ignore=shutil.ignore_patterns("__pycache__"))
            # A challenger has a few trees less: a version of its own, and not worse.
            policy = POLICY.format(kind=kind).replace("[data]", f"rounds = {100 - 4 * number}\n[data]")
            (checkout / "orrery.toml").write_text(policy)
            with contextlib.suppress(subprocess.TimeoutExpired):  # a push tells for as long as it is looked at
                platform.pushed(checkout, kind, f"Version {number + 1}")

            def assigned(kind: str = kind, number: int = number) -> dict[str, Any] | None:
                found = httpx.get(f"{platform.settings.control_url}/api/serving/assignment", timeout=30).json()["slots"]
                mine = [one for one in found if one["model"] == kind and one["version"] == number + 1]
                return mine[0] if mine else None

            def over(kind: str = kind, number: int = number, assigned: Any = assigned) -> bool:
                kinds = [event.kind for event in platform.events(kind) if event.version == number + 1]
                failed = [event.why for event in platform.events(kind, "failed")]
                assert not failed, failed
                return assigned() is not None or "rejected" in kinds

            try:
                wait(over, 240)
                slot = assigned()
                assert slot is not None, f"version {number + 1} was not promoted in staging"
                slots.setdefault(kind, []).append(slot)
            except AssertionError as error:
                notes[f"orrery {kind} {number + 1}"] = str(error)
    finally:
        platform.stop()
        platform.orrery.timeline.engine.dispose()
    (folder / "slots.json").write_text(json.dumps(slots, indent=1))
    return {kind: Path(found[0]["artifact"]) for kind, found in slots.items()}


def _export(folder: Path, kind: str, artifact: Path, notes: dict[str, str]) -> None:
    """Take the fitted object out of the version, as a pickle and, where it converts, as ONNX."""
    import cloudpickle

    from orrery.pipeline.artifact import read_fitted
    from orrery.pipeline.checkout import checkout_of, load_module

    out = folder / kind
    out.mkdir()
    module = load_module(artifact / "code", "pipeline")
    model = read_fitted(artifact, "model", checkout_of(module)).model
    asked = clients(SINGLES + BATCH * BATCHES, 2)[SINGLES : SINGLES + BATCH]
    rows = asked.select(*pipeline.NUMBERS, *pipeline.WORDS).to_pandas()
    expected = model.predict_proba(rows)[:, 1]
    (out / "expected.json").write_text(json.dumps(expected.tolist()))
    if type(model).__module__ not in sys.modules or type(model).__name__ == "WithRule":
        fitted, model = model, pipeline.WithRule(model.boosting)
        assert np.allclose(fitted.predict_proba(rows)[:, 1], model.predict_proba(rows)[:, 1])
    cloudpickle.register_pickle_by_value(pipeline)
    (out / "model.pkl").write_bytes(cloudpickle.dumps(model, protocol=pickle.HIGHEST_PROTOCOL))
    try:
        data = to_onnx(model)
        from onnxruntime import InferenceSession

        given = {name: rows[name].to_numpy(np.float64 if name in pipeline.NUMBERS else object) for name in rows.columns}
        said = InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, given)[0]
        apart = float(np.abs(said - expected).max())
        assert apart < 1e-4, f"its answers are up to {apart:.2g} from the model's own"
        (out / "model.onnx").write_bytes(data)
    except Exception as error:  # whatever a converter says of a model is why it is not served as ONNX
        notes[f"onnx {kind}"] = " ".join(str(error).split())[:200]


def to_onnx(model: Any) -> bytes:
    """Convert a fitted pipeline: an input of shape (rows,) for each column, the positive class's probability out.

    Inputs by column, and one number for each row, are what MLflow's ONNX flavour can be asked for with a table.
    """
    from onnx import TensorProto, checker, helper
    from skl2onnx import convert_sklearn, update_registered_converter
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
    from skl2onnx.sklapi import CastTransformer
    from sklearn.pipeline import Pipeline

    (_, prepared), (_, learner) = model.steps  # AttributeError: not a pipeline
    if type(learner).__module__.startswith("xgboost"):
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

        update_registered_converter(
            type(learner),
            "XGBoostXGBClassifier",
            calculate_linear_classifier_output_shapes,
            convert_xgboost,
            options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
        )
    kinds = {name: DoubleTensorType([None, 1]) for name in pipeline.NUMBERS}
    kinds |= {name: StringTensorType([None, 1]) for name in pipeline.WORDS}
    # Scaled in 64 bits and cast once, as scikit-learn and XGBoost do: a threshold of XGBoost is a value that occurs,
    # and the last bit of a scaler in 32 bits sends rows down the other branch.
    made = convert_sklearn(
        Pipeline([("prepared", prepared), ("cast", CastTransformer(dtype=np.float32)), ("learner", learner)]),
        initial_types=list(kinds.items()),
        options={id(learner): {"zipmap": False}},
        target_opset={"": 15, "ai.onnx.ml": 3},
    )
    graph = made.graph
    nodes = []
    for given in graph.input:
        name = given.name
        for node in graph.node:
            node.input[:] = [f"{name}.column" if one == name else one for one in node.input]
        nodes.append(helper.make_node("Reshape", [name, "shape.column"], [f"{name}.column"]))
        given.CopyFrom(helper.make_tensor_value_info(name, given.type.tensor_type.elem_type, [None]))
    graph.initializer.append(helper.make_tensor("shape.column", TensorProto.INT64, [2], [-1, 1]))
    graph.initializer.append(helper.make_tensor("positive", TensorProto.INT64, [], [1]))
    both = next(one.name for one in graph.output if one.name.startswith("prob"))
    graph.node.append(helper.make_node("Gather", [both, "positive"], ["probability"], axis=1))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None]))
    checker.check_model(made)
    return bytes(made.SerializeToString())


def _write_bodies(folder: Path) -> None:
    """Write the requests: rows that nobody trained on, singly and in batches, in the two forms."""
    rows = clients(SINGLES + BATCH * BATCHES, 2).select(*pipeline.NUMBERS, *pipeline.WORDS)
    loads = {"single": [(number, 1) for number in range(SINGLES)]}
    loads["batch"] = [(SINGLES + BATCH * number, BATCH) for number in range(BATCHES)]
    for load, pieces in loads.items():
        found: dict[str, list[str]] = {"mlflow": [], "v2": []}
        for start, count in pieces:
            piece = rows[start : start + count]
            split = {"columns": piece.columns, "data": [list(row) for row in piece.iter_rows()]}
            found["mlflow"].append(json.dumps({"dataframe_split": split}))
            inputs = [
                {
                    "name": name,
                    "shape": [count, 1],
                    "datatype": "FP64" if name in pipeline.NUMBERS else "BYTES",
                    "parameters": {"content_type": "np" if name in pipeline.NUMBERS else "str"},
                    "data": piece[name].to_list(),
                }
                for name in piece.columns
            ]
            outputs = [{"name": "predict_proba"}]
            found["v2"].append(json.dumps({"parameters": {"content_type": "pd"}, "inputs": inputs, "outputs": outputs}))
        for form, lines in found.items():
            (folder / f"{form}-{load}.txt").write_text("\n".join(lines) + "\n")
