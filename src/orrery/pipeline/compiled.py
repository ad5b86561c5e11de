"""The compiled form of a version: an ONNX graph that was proven to say what the version's own Python says.

``compiled.onnx`` is the graph; ``compiled.json`` the :class:`~orrery.pipeline.verdict.Verdict`: what may be asked of it
and the proof, or why there is none. Nothing of the project and no pickle is read here, so the inference server itself
may use this module.

The graph takes up to three matrices, each a row of the request by row: ``numbers`` (float64, missing is NaN),
``wholes`` (int64) and ``texts`` (missing is ``MISSING``). What was not proven is not answered: :class:`Unproven` is
raised, and whoever asked turns to the version's own process, which answers, or says what is wrong.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orrery.errors import Damaged, OrreryError
from orrery.pipeline.manifest import FloatArray, Manifest, read_manifest, repaired
from orrery.pipeline.verdict import EXACT, GRAPH, MISSING, Column, Verdict, read_verdict

_TYPES: dict[str, frozenset[type]] = {
    "number": frozenset({float, int}),
    "single": frozenset({float, int}),
    "whole": frozenset({int}),
    "flag": frozenset({bool}),
    "text": frozenset({str}),
    "instant": frozenset({str}),
    "nothing": frozenset(),
}


class Unproven(OrreryError):
    """The compiled model was not proven for these rows; the version's own process answers for them."""


class Compiled:
    """A compiled version, ready to predict; for several threads at once.

    Parameters
    ----------
    verdict
        What it can be asked.
    manifest
        The version's own.
    graph
        The ONNX file's content.
    """

    def __init__(self, verdict: Verdict, manifest: Manifest, graph: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.verdict = verdict
        self.whole = verdict.whole
        """Whether :meth:`predict` answers requests; else only :meth:`of_features` can be used."""
        self.columns = tuple(column.name for column in verdict.columns)
        """What a request is expected to have, in the order of training."""
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.width = manifest.width
        self._probabilities = manifest.task != "regression"
        self._repair = manifest.repair
        self._expected = frozenset(self.columns)
        self._ignored = self._expected | {verdict.hidden}
        self._fed = {
            group: [column for column in verdict.columns if column.group == group]
            for group in ("numbers", "wholes", "texts")
        }
        self._order = [(column, column.name, _short(column)) for column in verdict.columns]
        self._known = {c.name: frozenset(c.known) for c in verdict.columns if c.known is not None}
        self._limits = np.array([np.inf if c.limit is None else c.limit for c in self._fed["numbers"]])
        self._nullable = np.array([c.nulls for c in self._fed["numbers"]], dtype=bool)
        self._infinite = np.array([c.infinite for c in self._fed["numbers"]], dtype=bool)
        self._ordinary = float(self._limits.min(initial=np.finfo(np.float64).max))
        picks = np.array(verdict.picks, dtype=np.intp)
        self._places = {} if verdict.labels is None else dict(zip(verdict.labels, picks.tolist(), strict=True))
        self._picks, self._unseen = np.maximum(picks, 0), np.flatnonzero(picks < 0)

    @classmethod
    def load(cls, artifact: Path | str) -> Compiled | None:
        """Load the compiled form of a version; None if it has none.

        Raises
        ------
        Damaged
            If it is not what was written.
        """
        folder = Path(artifact)
        verdict = read_verdict(folder)
        if verdict is None or verdict.why:
            return None
        try:
            graph = (folder / GRAPH).read_bytes()
        except FileNotFoundError:
            raise Damaged(f"{folder} has no {GRAPH}.") from None
        if hashlib.sha256(graph).hexdigest() != verdict.digest:
            raise Damaged(f"{GRAPH} in {folder} is not the one that was proven.")
        return cls(verdict, read_manifest(folder), graph)

    def unlike(self, sent: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Columns that are expected and were not sent, and columns that were sent and are ignored."""
        names = sent.keys()
        if names == self._expected:
            return (), ()
        return (
            tuple(name for name in self.columns if name not in names),
            tuple(name for name in names if name not in self._ignored),
        )

    def predict(self, columns: Mapping[str, Sequence[Any]], rows: int) -> FloatArray:
        """Predict for a request; its prediction is that of the version's own process, repair included.

        Parameters
        ----------
        columns
            Plain values as JSON brings them, by column; a column that is not there is null, unknown ones are ignored.
        rows
            Length of each column.

        Returns
        -------
        array of shape (rows, k)
            As :meth:`orrery.pipeline.predictor.Predictor.predict`.

        Raises
        ------
        Unproven
            If the proof does not hold for a value, or a value or length does not fit: the version's own process is
            to be asked, which knows what to say.
        """
        if not rows:
            return np.empty((0, self.width))
        return repaired(self._plain(columns, rows), self._repair)

    def try_out(self) -> None:
        """See that it says here what it said where it was proven, for the rows that the verdict keeps.

        Raises
        ------
        Damaged
            If it does not, or no rows are kept.
        """
        sample = self.verdict.sample
        if sample is None or self.verdict.proof is None:
            raise Damaged("No rows were kept to try the compiled model with.")
        try:
            found = self._plain(sample.columns, len(sample.output))
        except Unproven as error:
            raise Damaged(f"The compiled model does not answer a row that it was proven for. {error}") from None
        worst = apart(np.array(sample.output), found, sample.size).max()
        if not worst <= self.verdict.proof.tolerance:
            raise Damaged(f"The compiled model differs by {worst:.2g} from what it said when it was proven.")

    def _plain(self, columns: Mapping[str, Sequence[Any]], rows: int) -> FloatArray:
        """Predict without the repair."""
        return self.run(self._of_one(columns) if rows == 1 else self._of_many(columns, rows), rows)

    def of_features(self, given: Mapping[str, npt.NDArray[Any]] | npt.NDArray[Any], rows: int) -> FloatArray:
        """Predict from what the model step sees, without the repair.

        Parameters
        ----------
        given
            An array by column, or a matrix.

        Raises
        ------
        Unproven
            As :meth:`predict`.
        """
        feeds: dict[str, npt.NDArray[Any]] = {}
        if isinstance(given, np.ndarray):
            given = self._by_place(given)
        for group, fed in self._fed.items():
            if not fed:
                continue
            try:
                matrix = np.empty((rows, len(fed)), dtype=_DTYPES[group])
                for place, column in enumerate(fed):
                    values = given[column.name]
                    if group == "wholes" and values.dtype.kind not in "iu":  # NaN has no place among whole numbers
                        raise Unproven(f"{column.name} holds something else than whole numbers.")
                    matrix[:, place] = values
            except (KeyError, ValueError, TypeError) as error:
                raise Unproven(f"The features are others than were proven: {error}") from None
            if group == "texts":
                for place, column in enumerate(fed):
                    matrix[:, place] = self._texts(column, matrix[:, place].tolist())
            feeds[group] = matrix
        return self.run(feeds, rows)

    def _by_place(self, matrix: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
        if matrix.ndim != 2 or matrix.shape[1] != len(self.columns):
            raise Unproven(f"The features have shape {matrix.shape}; {len(self.columns)} columns were proven.")
        return dict(zip(self.columns, matrix.T, strict=True))

    def run(self, feeds: dict[str, npt.NDArray[Any]], rows: int) -> FloatArray:
        """Ask the graph itself with its matrices; raises as :meth:`predict`."""
        numbers = feeds.get("numbers")
        if numbers is not None and not -self._ordinary <= numbers.min() <= numbers.max() <= self._ordinary:
            self._check(numbers)  # also for a NaN, which is the smallest and the largest number then
        try:
            said = self._session.run([self.verdict.output], feeds)[0]
        except Exception as error:  # of the runtime, which has a class of its own for each code
            raise Unproven(f"The compiled model failed: {error}") from None
        if said.shape[0] != rows:
            raise Unproven(f"The compiled model said {said.shape[0]} predictions for {rows} rows.")
        if self.verdict.labels is not None:
            return self._shares(said)
        found: FloatArray = np.asarray(said, dtype=np.float64).reshape(rows, -1)[:, self._picks]
        if self._unseen.size:
            found[:, self._unseen] = 0.0
        low, high = float(found.min()), float(found.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise Unproven("The compiled model said something that is no finite number.")
        if self._probabilities:
            if low < -1e-6 or high > 1 + 1e-6:
                raise Unproven("The compiled model said something that is no probability.")
            if low < 0.0 or high > 1.0:
                found = np.clip(found, 0.0, 1.0)
        return found

    def _shares(self, said: npt.NDArray[Any]) -> FloatArray:
        """A class for each row: probability one for it."""
        try:
            places = [self._places[label] for label in said.ravel().tolist()]
        except KeyError as error:
            raise Unproven(f"The compiled model said {error}, which is no class.") from None
        shares: FloatArray = np.eye(max(self.width, 2))[places]
        return shares if self.width > 1 else shares[:, 1:]

    def _check(self, numbers: npt.NDArray[np.float64]) -> None:
        """Raise for numbers that are missing, infinite or too large where that was not proven."""
        missing, infinite = np.isnan(numbers), np.isinf(numbers)
        wrong = (missing & ~self._nullable) | (infinite & ~self._infinite)
        wrong |= (np.abs(numbers) > self._limits) & ~infinite
        if wrong.any():
            row, place = np.argwhere(wrong)[0]
            raise Unproven(f"{self._fed['numbers'][place].name} of row {row} is outside of what was proven.")

    def _of_one(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The matrices of one row, as :meth:`_of_many`; the usual values without an array for each column."""
        found: dict[str, list[Any]] = {"numbers": [], "wholes": [], "texts": []}
        numbers, texts = found["numbers"], found["texts"]
        for column, name, place in self._order:
            values = columns.get(name, _NULL)
            if type(values) is list and len(values) == 1:
                value = values[0]
                kind = type(value)
                if kind is float and place == _NUMBER:
                    numbers.append(value)
                    continue
                if kind is str and place == _TEXT and value != MISSING:
                    texts.append(value)
                    continue
            array = self._column(column, values, 1)
            if array is not None:
                found[column.group].append(array[0])
        return {group: np.array([row], dtype=_DTYPES[group]) for group, row in found.items() if row}

    def _of_many(self, columns: Mapping[str, Sequence[Any]], rows: int) -> dict[str, npt.NDArray[Any]]:
        feeds = {group: np.empty((rows, len(fed)), dtype=_DTYPES[group]) for group, fed in self._fed.items() if fed}
        places = dict.fromkeys(feeds, 0)
        absent = [None] * rows
        for column, name, _ in self._order:
            array = self._column(column, columns.get(name, absent), rows)
            if array is not None:
                feeds[column.group][:, places[column.group]] = array
                places[column.group] += 1
        return feeds

    def _column(self, column: Column, values: Any, rows: int) -> npt.NDArray[Any] | None:
        """Check the values of a column; as an array, if the graph uses it."""
        if not isinstance(values, list | tuple) or len(values) != rows:
            raise Unproven(f"{column.name} holds no list of {rows} values.")
        kinds = set(map(type, values))
        missing = type(None) in kinds
        kinds.discard(type(None))
        if missing and not column.nulls:
            raise Unproven(f"{column.name} is missing, for which nothing was proven.")
        if column.kind == "whole" and kinds == {float}:
            values = [None if value is None else _whole(column, value) for value in values]
        elif not kinds <= _TYPES[column.kind]:
            raise Unproven(f"{column.name} holds something else than a {column.kind}.")
        if column.kind == "text":
            return np.array(self._texts(column, values), dtype=object) if column.group else None
        if column.kind in ("instant", "nothing"):
            for value in values:
                if value is not None and not _is_instant(value):
                    raise Unproven(f"{column.name} holds what is no plain instant.")
            return None
        if column.kind == "whole":
            low, high = column.range or (-EXACT, EXACT)
            for value in values:
                if value is not None and not low <= value <= high:
                    raise Unproven(f"{column.name} holds {value}, which is outside of what was proven.")
        try:
            numbers = np.array(values, dtype=np.float32 if column.kind == "single" else np.float64)
        except OverflowError:
            raise Unproven(f"{column.name} holds a number that is too large.") from None
        return (
            (numbers.astype(_DTYPES[column.group]) if numbers.dtype != _DTYPES[column.group] else numbers)
            if column.group
            else None
        )

    def _texts(self, column: Column, values: Sequence[Any]) -> list[str]:
        known = self._known.get(column.name)
        if set(map(type, values)) == {str} and MISSING not in values and (known is None or known.issuperset(values)):
            return list(values)
        found = []
        for value in values:
            if value is None or value != value:
                if not column.nulls:
                    raise Unproven(f"{column.name} is missing, for which nothing was proven.")
                found.append(MISSING)
            elif type(value) is str and value != MISSING and (known is None or value in known):
                found.append(value)
            else:
                raise Unproven(f"{column.name} is {str(value)[:40]!r}, for which nothing was proven.")
        return found


def apart(own: FloatArray, other: FloatArray, size: float) -> npt.NDArray[np.float64]:
    """How far two predictions of the same rows are apart, for each row.

    Parameters
    ----------
    size
        Differences are absolute for values up to this, and relative to the value beyond.

    Examples
    --------
    >>> apart(np.array([[0.5], [100.0]]), np.array([[0.4], [90.0]]), 1.0).round(3).tolist()
    [0.1, 0.1]
    """
    worst: npt.NDArray[np.float64] = (np.abs(own - other) / np.maximum(np.abs(own), size)).max(axis=1)
    return worst


_NULL = [None]
_NUMBER, _TEXT = 1, 2


def _short(column: Column) -> int:
    """Whether a value of the usual type is taken as it is."""
    if column.kind == "number" and column.group == "numbers":
        return _NUMBER
    return _TEXT if column.kind == "text" and column.group == "texts" and column.known is None else 0


_DTYPES: dict[str, Any] = {"numbers": np.float64, "wholes": np.int64, "texts": object}


def _whole(column: Column, value: float) -> int:
    if not value.is_integer():
        raise Unproven(f"{column.name} holds {value}, which is no whole number.")
    return int(value)


def _is_instant(text: str) -> bool:
    """Whether it is ISO 8601 within the years that every unit of time can hold."""
    try:
        return 1700 < datetime.fromisoformat(text).year < 2200
    except ValueError:
        return False
