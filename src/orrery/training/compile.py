"""Compile a trained version, and prove that the compiled form says what the version's own Python says.

The model is converted to ONNX and compared with itself, asked through :func:`orrery.pipeline.predictor.outputs` as a
server asks it, on untouched rows and on :mod:`hard ones <orrery.training.hard_rows>`. Where the two differ only for
some kind of value (nulls of a column, unseen texts, infinities), such rows are left to the version's own Python; where
they differ otherwise, nothing is compiled. Double precision is tried first.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.errors import OrreryError
from orrery.pipeline.compiled import Compiled, Unproven, apart
from orrery.pipeline.manifest import FloatArray, Manifest
from orrery.pipeline.predictor import Predictor, arrays_of, method_of
from orrery.pipeline.verdict import EXACT, GRAPH, VERDICT, Column, Proof, Sample, Verdict
from orrery.training.convert import Graph, NotConvertible, convert
from orrery.training.hard_rows import KNOWN, Tag, hard_rows

TOLERANCE = {"binary": 1e-6, "multiclass": 1e-6, "regression": 1e-5}
"""Largest difference: of a probability (what single precision can round, with room for ten such steps), of a regression
relative to the size of its values (the same of a sum of hundreds)."""
ROWS = 2048
"""So many untouched rows are compared at most."""
SAMPLE = 8
"""Of those, so many stay with the version, to be asked again wherever it is loaded."""
ASKED = 400
"""So often the model is asked at most to find the hard rows that it refuses."""


def compile_version(artifact: Path, predictor: Predictor, rows: pl.DataFrame, seed: int, seconds: float) -> Verdict:
    """Try to compile a version; writes ``compiled.json`` and, if it was proven, ``compiled.onnx``.

    Parameters
    ----------
    predictor
        The version itself, of its folder `artifact`.
    rows
        Untouched rows, with all columns.
    seconds
        After so long no further attempt is begun.
    """
    began, cpu = time.perf_counter(), time.process_time()
    content = b""
    try:
        content, verdict = _attempts(predictor, rows, seed, began + seconds)
    except NotConvertible as error:
        verdict = Verdict(why=error.what)
    except Exception as error:  # a training that succeeded must not fail by what is only a matter of speed
        verdict = Verdict(why=f"compiling it failed: {type(error).__name__}: {error}")
    verdict = msgspec.structs.replace(verdict, seconds=round(time.process_time() - cpu, 3))
    if not verdict.why:
        (artifact / GRAPH).write_bytes(content)
    (artifact / VERDICT).write_bytes(msgspec.json.format(msgspec.json.encode(verdict), indent=1) + b"\n")
    return verdict


def _attempts(predictor: Predictor, rows: pl.DataFrame, seed: int, deadline: float) -> tuple[bytes, Verdict]:
    """Try one way after the other; the first that is proven."""
    model, method = estimator_of(predictor.model, predictor.manifest.task)
    sight = sight_of(predictor, rows)
    trial = Trial(sight, predictor.manifest, model, seed)
    whole_numbers = any(column.kind == "whole" for column in sight.columns)
    reason = ""
    for precision in ("double", "single"):
        for group in ("numbers", "wholes") if whole_numbers else ("numbers",):
            if time.perf_counter() > deadline:
                raise NotConvertible(f"there was no time for it{': ' if reason else ''}{reason}")
            columns = [_grouped(column, group) for column in sight.columns]
            try:
                graph = convert(model, method, columns, precision)
                verdict = trial.prove(graph, columns, precision)
                return graph.content, verdict
            except NotConvertible as error:
                reason = reason or error.what
    raise NotConvertible(reason)


def estimator_of(model: Any, task: str) -> tuple[Any, str]:
    """The estimator that is asked, also where the model is its bound method; and the method."""
    name, call = method_of(model, task)
    if callable(getattr(model, name, None)):
        return model, name
    owner = getattr(call, "__self__", None)
    bound = getattr(call, "__name__", "")
    if owner is not None and bound in ("predict", "predict_proba"):
        return owner, bound
    what = "a function" if not isinstance(model, type) and hasattr(model, "__code__") else f"a {type(model).__name__}"
    raise NotConvertible(f"it is {what}, and only estimators can be converted")


def _grouped(column: Column, group: str) -> Column:
    if column.kind != "whole" or not column.group:
        return column
    return msgspec.structs.replace(column, group=group, nulls=group == "numbers")


@dataclass(frozen=True)
class Sight:
    """What the model is compared on: requests, or what its step sees of them."""

    whole: bool
    real: pl.DataFrame
    """Untouched rows."""
    columns: list[Column]
    hidden: str
    own: Callable[[pl.DataFrame], FloatArray]
    """Ask the version itself."""
    compiled: Callable[[Compiled, pl.DataFrame], FloatArray]


def sight_of(predictor: Predictor, rows: pl.DataFrame) -> Sight:
    """Find out what the graph will be asked with.

    Raises
    ------
    NotConvertible
        If the model sees something that is no table.
    """
    places = np.unique(np.linspace(0, rows.height - 1, min(ROWS, rows.height)).astype(int))
    some = rows[places.tolist()]
    manifest = predictor.manifest
    if not manifest.live and manifest.features == manifest.rows_input:
        fitted = predictor.columns.of_frame(some).frame
        hidden = manifest.target if manifest.target in fitted.columns else ""
        real = fitted.select(list(predictor.columns.accepted))
        columns = [_column(name, dtype) for name, dtype in predictor.columns.accepted.items()]
        return Sight(True, real, columns, hidden, lambda frame: _asked(predictor, frame), _requested)
    given = predictor.features(some)
    table = table_of(given)
    if table is None:
        raise NotConvertible(f"its features are a {type(given).__name__}, and only tables can be given to a graph")
    columns = [_column(name, dtype) for name, dtype in table.schema.items()]
    return Sight(
        False,
        table,
        columns,
        "",
        lambda frame: _told(predictor, like(given, frame), frame.height),
        lambda compiled, frame: compiled.of_features(arrays_of(like(given, frame)), frame.height),
    )


def _asked(predictor: Predictor, frame: pl.DataFrame) -> FloatArray:
    return predictor.predict_rows(predictor.columns.of_values(plain(frame), frame.height))


def _told(predictor: Predictor, given: Any, count: int) -> FloatArray:
    with predictor.active():
        return predictor.of_features(given, count)


def _requested(compiled: Compiled, frame: pl.DataFrame) -> FloatArray:
    return compiled.predict(plain(frame), frame.height)


def plain(frame: pl.DataFrame) -> dict[str, list[Any]]:
    """Rows as a request's JSON brings them: instants as texts."""
    found = {}
    for name, dtype in frame.schema.items():
        values = frame[name].to_list()
        if isinstance(dtype, pl.Datetime | pl.Date):
            values = [None if value is None else value.isoformat() for value in values]
        found[name] = values
    return found


def table_of(given: Any) -> pl.DataFrame | None:
    """What a model sees as a frame; None if it is no table."""
    if isinstance(given, pl.DataFrame):
        return given
    if isinstance(given, np.ndarray) and given.ndim == 2 and given.dtype.kind in "fiub":
        return pl.DataFrame(given, schema=[str(place) for place in range(given.shape[1])])
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        return pl.from_pandas(given)
    return None


def like(given: Any, frame: pl.DataFrame) -> Any:
    """A table in the form in which the model was given its features."""
    if isinstance(given, pl.DataFrame):
        return frame
    if isinstance(given, np.ndarray):
        return frame.to_numpy().astype(given.dtype, copy=False)
    pandas = frame.to_pandas()
    pandas.columns = given.columns
    try:
        return pandas.astype(given.dtypes.to_dict())
    except (TypeError, ValueError) as error:
        raise Unproven(f"No features can hold this: {error}") from None


def _column(name: str, dtype: pl.DataType) -> Column:
    return msgspec.structs.replace(_kind_of(name, dtype), type=str(dtype))


def _kind_of(name: str, dtype: pl.DataType) -> Column:
    if dtype == pl.Float64:
        return Column(name=name, kind="number", group="numbers")
    if dtype == pl.Float32:
        return Column(name=name, kind="single", group="numbers")
    if dtype.is_integer():
        info = np.iinfo(str(dtype).lower()) if str(dtype) not in ("Int128", "UInt128") else np.iinfo("int64")
        ends = (max(int(info.min), -EXACT), min(int(info.max), EXACT))
        return Column(name=name, kind="whole", group="numbers", range=ends)
    if dtype == pl.Boolean:
        return Column(name=name, kind="flag", group="numbers")
    if dtype == pl.String:
        return Column(name=name, kind="text", group="texts")
    return Column(name=name, kind="instant" if isinstance(dtype, pl.Datetime | pl.Date) else "nothing")


class Trial:
    """The version's own answers, to which every attempt is compared."""

    def __init__(self, sight: Sight, manifest: Manifest, model: Any, seed: int) -> None:
        self._sight, self._manifest, self._model = sight, manifest, model
        self._said = sight.own(sight.real)
        self._tolerance = TOLERANCE[manifest.task]
        size = float(np.abs(self._said).mean()) if manifest.task == "regression" else 1.0
        self._size = size or 1.0
        changed = [column.name for column in sight.columns if column.group]
        self._texts = {
            name: sight.real[name].drop_nulls().unique(maintain_order=True).to_list()
            for name in changed
            if sight.real.schema[name] == pl.String
        }
        self._tested = 60
        self._hard, self._tags = hard_rows(sight.real, changed, self._texts, seed, self._tested)
        self._hard_said = _patiently(sight.own, self._hard, self._manifest.width)

    def prove(self, graph: Graph, columns: Sequence[Column], precision: str) -> Verdict:
        """Compare; what differs for a kind of value is left out, and all is compared again.

        Raises
        ------
        NotConvertible
            If the two differ otherwise.
        """
        columns = self._cautious(columns)
        for _ in range(3):
            verdict = self._verdict(graph, columns, precision)
            try:
                compiled = Compiled(verdict, self._manifest, graph.content)
            except Exception as error:  # of the runtime, which has a class of its own for each code
                said = " ".join(str(error).split())
                raise NotConvertible(f"the runtime cannot load its ONNX form: {said[:160]}") from error
            found = self._compare(compiled)
            if not found.wrong:
                proof = Proof(
                    rows=len(self._said),
                    hard_rows=len(self._tags),
                    unproven=found.unproven,
                    worst=found.worst,
                    tolerance=self._tolerance,
                    left_out=tuple(_left_out(columns)),
                )
                return msgspec.structs.replace(verdict, proof=proof, sample=self._sample(compiled))
            columns = self._narrowed(columns, found.wrong)
        raise NotConvertible("its ONNX form differs on rows that cannot be told from the others")

    def _sample(self, compiled: Compiled) -> Sample | None:
        """Some of the untouched rows that a request's JSON can bring and that the graph answers."""
        if not self._sight.whole:
            return None
        floats = [name for name, dtype in self._sight.real.schema.items() if dtype.is_float()]
        rows = self._sight.real.head(8 * SAMPLE)
        rows = rows.filter(pl.all_horizontal(pl.lit(True), pl.col(floats).is_finite().fill_null(True)))
        answered = ~np.isnan(_in_one(self._sight.compiled, compiled, rows)[:, 0])
        rows = rows.filter(pl.Series(answered)).head(SAMPLE)
        if rows.is_empty():
            return None
        return Sample(columns=plain(rows), output=self._sight.own(rows).tolist(), size=self._size)

    def _verdict(self, graph: Graph, columns: Sequence[Column], precision: str) -> Verdict:
        labels, picks = layout(graph, self._model, self._manifest)
        return Verdict(
            digest=hashlib.sha256(graph.content).hexdigest(),
            whole=self._sight.whole,
            columns=tuple(columns),
            hidden=self._sight.hidden,
            output=graph.output,
            labels=labels,
            picks=picks,
            precision=precision,
        )

    def _cautious(self, columns: Sequence[Column]) -> list[Column]:
        """Columns beyond those that are tested one by one hold ordinary values only."""
        used = [column.name for column in columns if column.group]
        beyond = set(used[self._tested :])
        return [
            msgspec.structs.replace(column, nulls=False, infinite=False, limit=1e9) if column.name in beyond else column
            for column in columns
        ]

    def _compare(self, compiled: Compiled) -> Comparison:
        found = Comparison()
        plain_rows = _in_one(self._sight.compiled, compiled, self._sight.real)
        unproven = np.isnan(plain_rows[:, 0])
        differ = apart(self._said, plain_rows, self._size)
        found.worst = float(differ[~unproven].max(initial=0.0))
        if found.worst > self._tolerance:
            bad = int((differ[~unproven] > self._tolerance).sum())
            raise NotConvertible(
                f"its ONNX form differs by up to {found.worst:.2g} on {bad} of {len(differ)} untouched rows"
            )
        if unproven.mean() > 0.5:
            raise NotConvertible(f"its ONNX form could answer only {1 - unproven.mean():.0%} of the untouched rows")
        hard = _in_one(self._sight.compiled, compiled, self._hard)
        differ = apart(self._hard_said, hard, self._size)
        for row, tag in enumerate(self._tags):
            if np.isnan(hard[row, 0]):
                found.unproven += 1
            elif not differ[row] <= self._tolerance:  # also where the version itself refuses the row
                found.wrong.append((tag, row, float(differ[row])))
            else:
                found.worst = max(found.worst, float(differ[row]))
        return found

    def _narrowed(self, columns: Sequence[Column], wrong: list[tuple[Tag, int, float]]) -> list[Column]:
        """Leave out the kinds of values for which the two differ."""
        changes: dict[str, dict[str, Any]] = {}
        for tag, row, differ in wrong:
            change = changes.setdefault(tag.column, {})
            if tag.kind in ("null", "nulls"):
                change["nulls"] = False
            elif tag.kind == "infinite":
                change["infinite"] = False
            elif tag.kind == "large":
                change["limit"] = min(change.get("limit", math.inf), self._below(tag))
            elif tag.kind == "unseen":
                change["known"] = self._known(tag.column)
            else:
                value = self._hard[tag.column][row]
                size = "is refused by the model itself" if math.isnan(differ) else f"differs by {differ:.2g}"
                raise NotConvertible(f"its ONNX form {size} where {tag.column} is {value!r:.40}")
        everywhere = changes.pop("", {})
        return [
            msgspec.structs.replace(column, **(everywhere | changes.get(column.name, {}))) if column.group else column
            for column in columns
        ]

    def _below(self, tag: Tag) -> float:
        """The largest magnitude that was tried below one that differs, at least what the data hold."""
        lower = [each.level for each in self._tags if each.kind == "large" and abs(each.level) < abs(tag.level)]
        seen = self._sight.real[tag.column].cast(pl.Float64).abs().max()
        return max([abs(each) for each in lower], default=float(seen or 0.0))  # type: ignore[arg-type]

    def _known(self, column: str) -> tuple[str, ...]:
        texts = self._texts[column]
        if len(texts) > KNOWN:
            raise NotConvertible(f"its ONNX form differs for unseen texts of {column}, which has too many to list")
        return tuple(texts)


@dataclass
class Comparison:
    """What one comparison found."""

    worst: float = 0.0
    unproven: int = 0
    wrong: list[tuple[Tag, int, float]] = field(default_factory=list)
    """Hard rows that differ, and by how much; NaN where the version itself refuses them."""


def layout(
    graph: Graph, model: Any, manifest: Manifest
) -> tuple[tuple[str | int | float, ...] | None, tuple[int, ...]]:
    """Where the prediction's columns are in the graph's output; or the labels it says, and their places."""
    import onnx

    output = onnx.load_from_string(graph.content).graph.output[0]
    if manifest.task == "regression":
        return None, (0,)
    classes = list(manifest.classes)
    own = [value.item() if isinstance(value, np.generic) else value for value in getattr(model, "classes_", ())]
    tensor = output.type.tensor_type
    labels = tensor.elem_type == onnx.TensorProto.STRING or (
        len(tensor.shape.dim) == 1 and manifest.task == "multiclass"
    )
    if labels:
        told = [int(value) if isinstance(value, bool) else value for value in own or classes]
        return tuple(told), tuple(classes.index(value) for value in own or classes)
    if len(tensor.shape.dim) == 1:
        return None, (0,)
    picks = tuple(own.index(value) if value in own else -1 for value in classes)
    if not own or not set(own) <= set(classes):
        picks = tuple(range(len(classes)))
    return None, picks if manifest.task == "multiclass" else picks[-1:]


def _patiently(own: Callable[[pl.DataFrame], FloatArray], rows: pl.DataFrame, width: int) -> FloatArray:
    """Ask for many rows of which some are refused: NaN for those, found by halving."""
    found = np.full((rows.height, width), np.nan)
    pending = [(0, rows.height)]
    for _ in range(ASKED):
        if not pending:
            break
        start, end = pending.pop()
        try:
            found[start:end] = own(rows[start:end])
        except OrreryError:
            if end - start > 1:
                middle = (start + end) // 2
                pending += [(start, middle), (middle, end)]
    return found


def _in_one(ask: Callable[[Compiled, pl.DataFrame], FloatArray], compiled: Compiled, rows: pl.DataFrame) -> FloatArray:
    """Ask the graph for many rows together and, where that is refused, one by one: NaN for what it leaves out."""
    try:
        return ask(compiled, rows)
    except Unproven:
        found = np.full((rows.height, compiled.width), np.nan)
        for row in range(rows.height):
            try:
                found[row] = ask(compiled, rows[row])
            except Unproven:
                continue
        return found


def _left_out(columns: Sequence[Column]) -> list[str]:
    used = [column for column in columns if column.group]
    found = []
    for words, chosen in (
        ("nulls in {}", [column.name for column in used if not column.nulls]),
        ("unseen texts in {}", [column.name for column in used if column.known is not None]),
        (
            "infinities in {}",
            [c.name for c in used if c.group == "numbers" and c.kind in ("number", "single") and not c.infinite],
        ),
        ("extremes in {}", [column.name for column in used if column.limit is not None]),
    ):
        if chosen:
            names = ", ".join(chosen[:3]) + (f" and {len(chosen) - 3} more" if len(chosen) > 3 else "")
            found.append(words.format(names if len(chosen) < len(used) or len(used) == 1 else "any column"))
    return found
