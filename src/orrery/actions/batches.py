"""Batches of a scoring: checked as requests are, logged as answers are, and made rows of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from orrery.actions.desk import Desk
from orrery.actions.promises import Promises, masked, plain
from orrery.data.arrays import inputs_of
from orrery.data.lake import DatasetVersion
from orrery.data.log import PredictionLog
from orrery.data.predictions import BATCH
from orrery.errors import ContractBroken
from orrery.pipeline.manifest import Manifest
from orrery.serving.contract import Broken, promised
from orrery.timeline.state import ModelState, Version
from orrery.types import digest

FloatArray = npt.NDArray[np.float64]

OWN = ("broken", "model_version", "dataset_version", "row")
"""Columns of every result, besides entity, event time and the predictions."""
SAFE = "Nothing is published; what was scored before this row is kept."


@dataclass(frozen=True)
class Job:
    """A run that can be done: everything it names is there.

    Parameters
    ----------
    model, version : who predicts.
    rows : the dataset's version.
    out : dataset that gets the predictions.
    environment, log : where the version answers, and whether the predictions are logged as answers there.
    manifest : of the version.
    columns : of the dataset that are read.
    """

    model: ModelState
    version: Version
    rows: DatasetVersion
    out: str
    environment: str
    log: bool
    manifest: Manifest
    columns: tuple[str, ...]

    @property
    def key(self) -> str:
        """Stands for the result: it is published once."""
        names = [self.model.name, str(self.version.number), f"{self.rows.name}@{self.rows.version}", self.out]
        return digest(["score", *names])

    @property
    def source(self) -> str:
        """What the log numbers the rows by."""
        place = f"{self.model.name}/{self.version.number}/{self.environment}"
        return f"{place}/{self.rows.name}@{self.rows.version}{self.mark}"

    @property
    def mark(self) -> str:
        """What tells the numbers of the rows from those before some were erased; empty where none were."""
        return f"~{self.rows.erased}" if self.rows.erased else ""


class Batches:
    """What becomes of a batch of rows before and after the model has seen it.

    Parameters
    ----------
    desk, job : the means, and what is to be done.
    """

    def __init__(self, desk: Desk, job: Job) -> None:
        self.job, self._clock = job, desk.orrery.clock
        spec = job.model.spec_of(job.version.commit)
        self._policy, self._entity, self._time = spec.serving.broken, spec.model.entity, spec.model.time
        dataset = desk.orrery.states.data().datasets.get(next(iter(spec.data.values())))
        self._promises = Promises(promised(dataset.contract if dataset else None, spec.model.target))
        self._log = PredictionLog(desk.orrery.lake, job.model.name) if job.log else None
        self._score = desk.orrery.anomaly_scores(job.model.name, job.version.number)

    def checked(self, at: int, frame: pl.DataFrame) -> tuple[pl.DataFrame, Broken | None]:
        """Return what the model gets of a batch, and the columns of each row that break the contract."""
        broken = self._promises.broken(frame)
        if broken is not None and self._policy == "refuse":
            row = next(row for row, names in enumerate(broken) if names)
            column = broken[row][0]
            raise ContractBroken(
                f"Column {column} of row {at + row} of {name_of(self.job.rows)} holds "
                f"{frame[column][row]!r:.60}, which breaks the model's contract.",
                safe=SAFE,
                todo='Correct the row in a new version of the dataset, or let [serving] broken be "mask" or "flag".',
            )
        mask = broken is not None and self._policy == "mask"
        return (masked(frame, broken) if mask and broken else frame), broken

    def write(self, at: int, frame: pl.DataFrame, broken: Broken | None, said: FloatArray) -> pl.DataFrame:
        """Log the predictions of a batch, and return the rows that become part of the result."""
        if self._log is not None:
            self._log.advance(self.job.source, at, self._record(at, frame, broken, said))
        return self._result(at, frame, broken, said)

    def _result(self, at: int, frame: pl.DataFrame, broken: Broken | None, said: FloatArray) -> pl.DataFrame:
        job, height = self.job, frame.height
        names = [", ".join(row) or None for row in broken] if broken else [None] * height
        return pl.DataFrame(
            [
                *(frame[name] for name in dict.fromkeys((self._entity, self._time)) if name in frame.columns),
                *(pl.Series(name, values) for name, values in answers(job.manifest, said).items()),
                pl.Series("broken", names, dtype=pl.String),
                pl.Series("model_version", [job.version.number], dtype=pl.Int64).new_from_index(0, height),
                pl.Series("dataset_version", [job.rows.version], dtype=pl.Int64).new_from_index(0, height),
                pl.int_range(at, at + height, dtype=pl.Int64, eager=True).alias("row"),
            ]
        )

    def _record(self, at: int, frame: pl.DataFrame, broken: Broken | None, said: FloatArray) -> pl.DataFrame:
        """Return the rows of the log. Their inputs are the rows of the dataset that their id names."""
        job = self.job
        known = self._entity in frame.columns
        texts = frame[self._entity].cast(pl.String).fill_null("") if known else pl.Series([""] * frame.height)
        if known and frame[self._entity].dtype.is_temporal():
            texts = pl.Series(["" if text is None else text for text in plain(frame[self._entity])])
        rows = pl.int_range(at, at + frame.height, dtype=pl.Int64, eager=True)
        scores = None if self._score is None else self._score.scores(inputs_of(frame, self._score))
        lists = pl.Series("_broken", broken or [[]], dtype=pl.List(pl.String))
        return pl.DataFrame({"_id": rows.cast(pl.String)}).with_columns(
            (pl.lit(f"{name_of(job.rows)}{job.mark}#") + pl.col("_id")).alias("_id"),
            pl.lit(self._clock.now()).cast(pl.Datetime("us", "UTC")).alias("_at"),
            pl.lit(job.environment).alias("_environment"),
            pl.lit(job.version.number, pl.Int32).alias("_version"),
            pl.lit(BATCH).alias("_role"),
            texts.alias("_entity"),
            pl.Series("_output", said).cast(pl.List(pl.Float64)),
            lists if broken else lists.new_from_index(0, frame.height),
            pl.Series("_anomaly", scores) if scores is not None else pl.lit(None, pl.Float64).alias("_anomaly"),
        )


def answers(manifest: Manifest, said: FloatArray | None = None) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of the predictions, as the inference server answers them."""
    if said is None:
        said = np.empty((0, manifest.width))
    if manifest.task == "regression":
        return {"prediction": said[:, 0]}
    if manifest.task == "binary":
        return {"probability": said[:, 0], "prediction": (said[:, 0] >= 0.5).astype(np.int64)}
    each = {f"probability_{place}": np.ascontiguousarray(said[:, place]) for place in range(said.shape[1])}
    return {**each, "prediction": said.argmax(axis=1).astype(np.int64) if len(said) else np.empty(0, np.int64)}


def name_of(version: DatasetVersion) -> str:
    """Return a dataset's version as people write it."""
    return f"{version.name}@v{version.version}"
