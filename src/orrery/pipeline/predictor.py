"""From rows to predictions, by the same code in training, gates and serving."""

from __future__ import annotations

import atexit
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from orrery.errors import ProjectFailed
from orrery.pipeline.artifact import Fitted, read_fitted
from orrery.pipeline.checkout import Checkout, checkout_of, describe, load_module
from orrery.pipeline.compiled import Compiled, Unproven
from orrery.pipeline.manifest import FloatArray, Manifest, read_manifest, repaired
from orrery.pipeline.rows import Columns, Rows
from orrery.pipeline.selection import only_selects
from orrery.pipeline.steps import Step, find_steps
from orrery.pipeline.torch_module import FORWARD, array_of, ask, is_module
from orrery.pipeline.verdict import read_verdict

_FAILURES = (Exception, SystemExit, pl.exceptions.PanicException)
"""What the project's code may raise; a panic of Polars is no Exception."""


class Predictor:
    """A version, ready to predict.

    Parameters
    ----------
    manifest, fitted
        What the version is, and what training gave.
    checkout, steps
        Its code.
    columns
        What requests are held to.
    compiled
        What answers in place of the model, for what it was proven for.
    alone
        Whether this is the only project's code in the process for as long as the process lives: then its modules stay
        active, which saves 0.1 ms a request.
    """

    def __init__(
        self,
        manifest: Manifest,
        fitted: Fitted,
        checkout: Checkout,
        steps: dict[str, Step],
        columns: Columns,
        *,
        compiled: Compiled | None = None,
        alone: bool = False,
    ) -> None:
        self.manifest = manifest
        self.columns = columns
        self.model, self._kept = fitted.model, fitted.kept
        self._compiled = compiled
        self.warning = ""
        """Why its compiled model is not used, though there is one."""
        self.checkout = checkout
        self._steps = [steps[name] for name in manifest.live]
        self._alone = checkout.active() if alone else None
        if self._alone is not None:
            self._alone.__enter__()
            atexit.register(self._alone.__exit__, None, None, None)  # while there still are modules to put back

    def leave(self) -> None:
        """Give up being alone in the process, so that another version can be."""
        if self._alone is not None:
            atexit.unregister(self._alone.__exit__)
            self._alone.__exit__(None, None, None)
            self._alone = None

    @classmethod
    def load(cls, artifact: Path | str, which: str = "model", *, alone: bool = False, quick: bool = False) -> Predictor:
        """Load a version.

        Parameters
        ----------
        artifact
            Its folder.
        which
            ``"model"``, trained on all rows, or ``"probe"``, trained without the untouched ones.
        alone
            See the class.
        quick
            Have the compiled model answer where it can, if features are computed in Python before it.

        Raises
        ------
        NotFound
            If there is none.
        Damaged
            If it is not what was written, or a library that it needs is missing.
        ProjectFailed
            If its code cannot be imported.
        """
        folder = Path(artifact)
        manifest = read_manifest(folder)
        module = load_module(folder / "code", manifest.module)
        checkout = checkout_of(module)
        columns = Columns(pl.read_parquet(folder / "sample.parquet").schema, hidden=manifest.target)
        steps = find_steps(module, manifest.inputs)
        fitted = read_fitted(folder, which, checkout)
        compiled, warning = _quick(folder) if quick and which == "model" else (None, "")
        predictor = cls(manifest, fitted, checkout, steps, columns, compiled=compiled, alone=alone)
        predictor.warning = warning
        return predictor

    def predict(self, rows: pl.DataFrame) -> FloatArray:
        """Predict.

        Parameters
        ----------
        rows
            One row a prediction; columns as in `manifest.columns`, absent ones are null, others are ignored.

        Returns
        -------
        array of shape (rows, k)
            Binary: the probability of the second class; multiclass: of each class; regression: the value.

        Raises
        ------
        RowRefused
            If a value does not fit its column.
        ProjectFailed
            If the project's code raises, or gives another shape or something that is no finite number.
        """
        return self.predict_rows(self.columns.of_frame(rows))

    def predict_rows(self, rows: Rows) -> FloatArray:
        """Predict for rows that fit already, as :meth:`predict`."""
        count = rows.frame.height
        if not count:
            return np.empty((0, self.manifest.width))
        with self.active():
            output = self.of_features(self._features(rows.frame), count)
        return repaired(output, self.manifest.repair)

    def of_features(self, given: Any, count: int) -> FloatArray:
        """Ask the model with what it sees, without the repair; raises as :meth:`predict`."""
        if self._compiled is not None:
            try:
                return self._compiled.of_features(arrays_of(given), count)
            except Unproven:
                pass  # the model itself knows what to say
        return outputs(self.model, given, count, self.manifest, self.checkout.root)

    def features(self, rows: pl.DataFrame) -> Any:
        """What the model sees of these rows; raises as :meth:`predict`."""
        return self.features_of(self.columns.of_frame(rows))

    def features_of(self, rows: Rows) -> Any:
        """What the model sees of rows that fit already."""
        with self.active():
            return self._features(rows.frame)

    def only_selects(self) -> bool:
        """Whether what the model sees are columns of the rows as they come."""
        if [step.name for step in self._steps] != [self.manifest.features]:
            return not self._steps
        (step,) = self._steps
        source = self.checkout.sources.get(step.function.__code__.co_filename, b"")
        return only_selects(step.function, source, self.manifest.rows_input)

    def features_unhidden(self, rows: pl.DataFrame) -> Any:
        """The same of rows in the exact training schema, the target included: for finding features that use it."""
        with self.active():
            return self._features(rows)

    @property
    def root(self) -> Path:
        """The folder of its code, for naming its lines in errors."""
        return self.checkout.root

    def active(self) -> Any:
        """A context in which the project's modules are those of this version."""
        return self.checkout.active() if self._alone is None else nullcontext()

    def _features(self, frame: pl.DataFrame) -> Any:
        values = {**self._kept, self.manifest.rows_input: frame}
        for step in self._steps:
            arguments = {name: values[name] for name in step.needs}
            for name, default in step.parameters.items():
                arguments[name] = self.manifest.params.get(name, default)
            ordered = [arguments.pop(name) for name in step.positional]
            try:
                values[step.name] = step.function(*ordered, **arguments)
            except _FAILURES as error:
                raise ProjectFailed(
                    f"The step {step.name} failed on rows to predict: {describe(error, self.checkout.root)}",
                    todo="It gets rows as they are when a prediction is asked for: without the target, values missing.",
                ) from error
        found = values[self.manifest.features]
        return found.collect() if isinstance(found, pl.LazyFrame) else found


def _quick(folder: Path) -> tuple[Compiled | None, str]:
    """Load the compiled model that is asked after features are computed in Python; or say why it cannot be used.

    A graph that answers whole requests is asked by the inference server: who comes here wants the model's own answer.
    """
    try:
        verdict = read_verdict(folder)
        if verdict is None or verdict.why or verdict.whole:
            return None, ""
        return Compiled.load(folder), ""
    except Exception as error:  # whatever is wrong with it, there is the model itself
        return None, f"its compiled model is not used: {error}"


def arrays_of(given: Any) -> Any:
    """What a model sees, as :meth:`orrery.pipeline.compiled.Compiled.of_features` takes it.

    Raises
    ------
    Unproven
        If it is no table.
    """
    if isinstance(given, np.ndarray):
        return given
    if isinstance(given, pl.DataFrame):
        return {
            name: (given[name].cast(pl.Float64) if dtype == pl.Boolean else given[name]).to_numpy()
            for name, dtype in given.schema.items()
        }
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        return {str(name): given[name].to_numpy() for name in given.columns}
    raise Unproven(f"The features are a {type(given).__name__}, which is no table.")


def outputs(model: Any, given: Any, count: int, manifest: Manifest, root: Path) -> FloatArray:
    """Ask any model and check what it says.

    Parameters
    ----------
    model
        Has ``predict_proba`` or ``predict``, or is a function, or a PyTorch module.
    given
        Its input.
    count
        Rows of it.
    root
        The project's folder, for naming its lines in errors.

    Raises
    ------
    ProjectFailed
        As :meth:`Predictor.predict`.
    """
    name, call = method_of(model, manifest.task)
    try:
        raw = array_of(call(given))
    except ProjectFailed:
        raise
    except _FAILURES as error:
        raise ProjectFailed(f"{name} failed: {describe(error, root)}") from error
    if raw.ndim == 0 or raw.shape[0] != count:
        shape = f"{raw.shape[0]} rows" if raw.ndim else "a single value"
        raise ProjectFailed(f"{name} returned {shape} for {count}.", todo="Return one prediction for each row.")
    if manifest.task == "regression":
        found = _numbers(name, raw.reshape(count, 1) if raw.ndim == 1 else raw)
        if found.shape != (count, 1):
            raise ProjectFailed(f"{name} returned shape {raw.shape} for {count} rows; a regression has one column.")
        return found
    if raw.ndim == 1 and (raw.dtype.kind not in "fiub" or manifest.task == "multiclass"):
        return _of_labels(name, raw, manifest)
    return _probabilities(name, _numbers(name, raw.reshape(count, 1) if raw.ndim == 1 else raw), model, manifest)


def method_of(model: Any, task: str) -> tuple[str, Any]:
    """How a model is asked: the name, for messages, and the function.

    Raises
    ------
    ProjectFailed
        If it can be asked in no way.
    """
    names = ("predict",) if task == "regression" else ("predict_proba", "predict")
    for name in names:
        if callable(getattr(model, name, None)):
            return name, getattr(model, name)
    if is_module(model):
        return FORWARD, partial(ask, model)
    if callable(model) and not isinstance(model, type):
        name = getattr(model, "__name__", type(model).__name__)
        return "The model" if name == "<lambda>" else name, model
    kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
    raise ProjectFailed(
        f"The model step returned {kind}, which is no model.",
        todo="Return something fitted with predict_proba or predict, or a function of the features.",
    )


def _numbers(name: str, raw: npt.NDArray[Any]) -> FloatArray:
    try:
        found = np.ascontiguousarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ProjectFailed(f"{name} returned something that is no number: {error}") from error
    bad = ~np.isfinite(found).reshape(len(found), -1).all(axis=1)
    if bad.any():
        rows = np.flatnonzero(bad)
        raise ProjectFailed(
            f"{name} returned no finite number for {len(rows)} of {len(found)} rows, first for row {rows[0]}.",
            todo="Let the model cope with missing values, or fill them in a step.",
        )
    return found


def _of_labels(name: str, raw: npt.NDArray[Any], manifest: Manifest) -> FloatArray:
    """A class for each row: probability one for it."""
    places = {value: place for place, value in enumerate(manifest.classes)}
    try:
        codes = np.array([places[value] for value in raw.tolist()])
    except (KeyError, TypeError):
        unknown = next(value for value in raw.tolist() if value not in places)
        raise ProjectFailed(f"{name} returned {unknown!r}, which is no value of {manifest.target}.") from None
    shares: FloatArray = np.eye(len(places))[codes]
    return shares if manifest.task == "multiclass" else shares[:, 1:]


def _probabilities(name: str, found: FloatArray, model: Any, manifest: Manifest) -> FloatArray:
    count, width = found.shape[0], len(manifest.classes)
    own = [value.item() if isinstance(value, np.generic) else value for value in getattr(model, "classes_", ())]
    if found.ndim == 2 and len(own) == found.shape[1] and set(own) <= set(manifest.classes):
        # The model knows which column is which class; it may have seen fewer of them.
        aligned = np.zeros((count, width))
        aligned[:, [manifest.classes.index(value) for value in own]] = found
        found = aligned
    if found.ndim != 2 or found.shape[1] not in ({1, 2} if manifest.task == "binary" else {width}):
        wanted = "1 or 2 columns" if manifest.task == "binary" else f"{width} columns"
        raise ProjectFailed(
            f"{name} returned shape {found.shape} for {count} rows; a {manifest.task} model has {wanted}."
        )
    if found.min() < -1e-6 or found.max() > 1 + 1e-6:
        raise ProjectFailed(f"{name} returned {found.min():.6g} to {found.max():.6g}; a probability is within 0 and 1.")
    if found.shape[1] > 1 and np.abs(found.sum(axis=1) - 1).max() > 1e-3:
        raise ProjectFailed(f"{name} returned probabilities of a row that do not add up to 1.")
    found = np.clip(found, 0.0, 1.0)
    return found if manifest.task == "multiclass" else np.ascontiguousarray(found[:, -1:])


def label_codes(manifest: Manifest, target: pl.Series) -> FloatArray:
    """Labels as losses take them: the number of the class, or the value itself."""
    if manifest.task == "regression":
        values: FloatArray = target.cast(pl.Float64).to_numpy()
        return values
    if isinstance(target.dtype, pl.Categorical | pl.Enum):
        target = target.cast(pl.String)
    places = {value: float(place) for place, value in enumerate(manifest.classes)}
    return np.array([places[value] for value in target])
