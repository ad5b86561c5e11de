"""What a version says about itself, ``version.json``: readable without Polars and without the project's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from orrery.errors import Damaged, NotFound
from orrery.types import Task

FloatArray = npt.NDArray[np.float64]


class Repair(msgspec.Struct, frozen=True):
    """Platt's two numbers, applied to the probability on the logit scale: ``slope * logit(p) + intercept``."""

    slope: float
    intercept: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to know about a version without running it."""

    format: int = 1
    model: str
    task: Task
    target: str
    entity: str = ""
    time: str = ""
    classes: tuple[bool | int | float | str, ...] = ()
    """Values of the target, sorted; the output has a column for each, for a binary task one: that of the second."""
    rows_input: str
    """Argument of the pipeline that gets the rows of a request."""
    dataset: str = ""
    """Name of the dataset those rows were of in training."""
    columns: dict[str, str]
    """Columns of a request and their types, in words."""
    module: str = "pipeline"
    step: str = "model"
    """The step that returned the model."""
    inputs: tuple[str, ...] = ()
    """All that was supplied to the pipeline: datasets and target."""
    features: str
    """The step (or the dataset) whose result the model sees."""
    live: tuple[str, ...] = ()
    """Steps computed anew for each request, in order."""
    kept: tuple[str, ...] = ()
    """Steps and datasets whose value of training is used."""
    params: dict[str, Any] = {}
    commit: str = ""
    change: str = ""
    trained_until: str | None = None
    """Newest event time learnt from, ISO 8601."""
    rows: int = 0
    code: str = ""
    """Digest of the files in ``code/``."""
    repair: Repair | None = None

    @property
    def width(self) -> int:
        """Columns of the output."""
        return len(self.classes) if self.task == "multiclass" else 1


def read_manifest(artifact: Path | str) -> Manifest:
    """Read ``version.json``.

    Raises
    ------
    NotFound
        If the folder holds no version.
    Damaged
        If it is not what was written.
    """
    try:
        text = (Path(artifact) / "version.json").read_bytes()
    except FileNotFoundError:
        raise NotFound(f"There is no version in {artifact}.") from None
    try:
        return msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise Damaged(f"version.json in {artifact} cannot be read: {error}.") from error


def repaired(probabilities: FloatArray, repair: Repair | None) -> FloatArray:
    """Apply Platt's two numbers to probabilities.

    Examples
    --------
    >>> repaired(np.array([[0.5]]), Repair(1.0, 1.0)).round(3).tolist()
    [[0.731]]
    """
    if repair is None:
        return probabilities
    clipped = np.clip(probabilities, 1e-6, 1 - 1e-6)
    logit = repair.slope * np.log(clipped / (1 - clipped)) + repair.intercept
    # tanh neither overflows nor warns, however steep the slope
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logit)), dtype=np.float64)
