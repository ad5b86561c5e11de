"""The proof that a graph says what the version's own Python says, or what is left to the latter."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from orrery.errors import OrreryError
from orrery.pipeline.compiled import Compiled, apart
from orrery.pipeline.manifest import FloatArray, Manifest
from orrery.pipeline.verdict import Column, Proof, Sample, Verdict
from orrery.training.convert import Graph
from orrery.training.hard_rows import KNOWN, Tag, hard_rows
from orrery.training.refusal import NotConvertible
from orrery.training.sight import Sight, plain

TOLERANCE = {"binary": 1e-6, "multiclass": 1e-6, "regression": 1e-5}
"""Largest difference: of a probability (what single precision can round, with room for ten such steps), of a regression
relative to the size of its values (the same of a sum of hundreds)."""
SAMPLE = 8
"""Of the untouched rows, so many stay with the version, to be asked again wherever it is loaded."""
TESTED = 60
"""So many columns are tested with all kinds of values, those of texts first; the others with nulls."""
ASKED = 400
"""So often the version itself is asked at most to find the hard rows of one kind that it refuses."""

Ask = Callable[[pl.DataFrame], FloatArray]
"""Predictions for rows; an :class:`~orrery.errors.OrreryError` if it refuses one of them."""


class Trial:
    """The version's own answers, to which every attempt is compared."""

    def __init__(self, sight: Sight, manifest: Manifest, model: Any, graph: Graph, seed: int) -> None:
        self._sight, self._manifest, self._model = sight, manifest, model
        self._said = sight.own(sight.real)
        self._tolerance = TOLERANCE[manifest.task]
        size = float(np.abs(self._said).mean()) if manifest.task == "regression" else 1.0
        self._size = size or 1.0
        used = sorted((column for column in sight.columns if column.group), key=lambda column: column.group != "texts")
        changed = [column.name for column in used]
        self._texts = {
            name: sight.real[name].drop_nulls().unique(maintain_order=True).to_list()
            for name in changed
            if sight.real.schema[name] == pl.String
        }
        self._tested = frozenset(changed[:TESTED])
        self._hard, self._tags = hard_rows(sight.real, changed, self._texts, thresholds(graph), seed, TESTED)
        self._hard_said = asked_by_kind(sight.own, self._hard, self._tags, self._manifest.width)

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
        answered = ~np.isnan(self._of_graph(compiled, rows)[:, 0])
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
        """Columns beyond those in which all is tried hold ordinary values only, and nulls."""
        return [
            column
            if not column.group or column.name in self._tested
            else msgspec.structs.replace(column, known=self._known(column.name))
            if column.group == "texts"
            else msgspec.structs.replace(column, infinite=False, limit=1e9)
            for column in columns
        ]

    def _compare(self, compiled: Compiled) -> Comparison:
        found = Comparison()
        plain_rows = self._of_graph(compiled, self._sight.real)
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
        hard = self._of_graph(compiled, self._hard)
        differ = apart(self._hard_said, hard, self._size)
        for row, tag in enumerate(self._tags):
            if np.isnan(hard[row, 0]):
                found.unproven += 1
            elif not differ[row] <= self._tolerance:  # also where the version itself refuses the row
                found.wrong.append((tag, row, float(differ[row])))
            else:
                found.worst = max(found.worst, float(differ[row]))
        return found

    def _of_graph(self, compiled: Compiled, rows: pl.DataFrame) -> FloatArray:
        return asked(lambda some: self._sight.compiled(compiled, some), rows, compiled.width)

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


def thresholds(graph: Graph) -> npt.NDArray[np.float64]:
    """What the trees of a graph compare to, each once; first what most rows come across."""
    import onnx
    from onnx import numpy_helper

    values, depths = [np.empty(0)], [np.empty(0)]
    for node in onnx.load_from_string(graph.content).graph.node:
        told = {each.name: each for each in node.attribute}
        if "nodes_values_as_tensor" in told:
            values.append(numpy_helper.to_array(told["nodes_values_as_tensor"].t).astype(np.float64))
        elif "nodes_values" in told:
            values.append(np.array(told["nodes_values"].floats, dtype=np.float64))
        else:
            continue
        depths.append(np.array(told["nodes_nodeids"].ints))  # of a tree the first is its root
    found = np.concatenate(values)[np.argsort(np.concatenate(depths), kind="stable")]
    return found[np.sort(np.unique(found, return_index=True)[1])]


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


def asked(ask: Ask, rows: pl.DataFrame, width: int, most: float = math.inf) -> FloatArray:
    """The answers for rows of which some are refused: NaN for those, found by halving.

    Raises
    ------
    NotConvertible
        If it takes more than `most` questions to find them.
    """
    found, times = np.full((rows.height, width), np.nan), 0
    pending = [(0, rows.height)]
    while pending:
        times += 1
        if times > most:
            raise NotConvertible("its own Python refuses so many of the hard rows that they cannot be told apart")
        start, end = pending.pop()
        try:
            found[start:end] = ask(rows[start:end])
        except OrreryError:
            if end - start > 1:
                middle = (start + end) // 2
                pending += [(start, middle), (middle, end)]
    return found


def asked_by_kind(own: Ask, rows: pl.DataFrame, tags: Sequence[Tag], width: int) -> FloatArray:
    """The same for hard rows and the version itself, where a question takes milliseconds.

    Where it refuses infinities, or a magnitude, in one column, all columns' are taken for refused. That is nearly
    always so, and means no more than that they are left to it.
    """
    found = np.full((rows.height, width), np.nan)
    places: dict[tuple[str, float], list[int]] = {}
    for place, tag in enumerate(tags):
        places.setdefault((tag.kind, tag.level), []).append(place)
    for (kind, _), chosen in places.items():
        if kind not in ("infinite", "large"):
            found[chosen] = asked(own, rows[chosen], width, math.inf if kind == "null" else ASKED)
            continue
        with contextlib.suppress(OrreryError):
            found[chosen] = own(rows[chosen])
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
