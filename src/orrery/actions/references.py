"""What monitors compare production with: sketches of what the champion learned from, made once for each training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.actions.desk import Desk
from orrery.data.arrays import as_trained, columns_of, counted, inputs_of
from orrery.monitors.predictions import output_columns
from orrery.pipeline.artifact import read_manifest
from orrery.spec import Spec
from orrery.stats import TableSketch
from orrery.stats.estimate import KEPT, Untouched
from orrery.stats.joint import JointReference
from orrery.stats.measure import encode
from orrery.stats.neighbours import Usual
from orrery.timeline.state import ModelState, Version

NEVER = b"-"  # stands for a reference that cannot be made of this version
REFERENCE_ROWS = 50_000  # newest training rows that requests are compared with


def references(
    desk: Desk, model: ModelState, champion: Version, policy: Spec, requests: pl.DataFrame
) -> dict[str, Any]:
    """Return the references of a look, by their names in :class:`~orrery.monitors.monitor.View`.

    Those of the inputs have the columns that requests bring: a dataset also holds what is known only afterwards. So
    they are made when the first requests are there. A repair learned nothing of the inputs: it is compared with what
    the version learned from that it repairs.
    """
    learned = model.trained(champion)
    newest = _Newest(desk, champion, learned.data, policy)
    inputs, outputs = f"{model.name}-{learned.number}", f"{model.name}-{champion.number}"
    brought = _brought(requests)

    def features() -> pl.DataFrame:
        """Return the columns of which drift can be told."""
        spec = policy.model
        rows = newest.of([name for name in brought if name not in (spec.entity, spec.time, spec.target)])
        return rows.select([name for name in rows.columns if countable(rows[name])])

    def groups(names: Sequence[str]) -> TableSketch:
        """Return the groups of declared columns; a number is a group's code."""
        rows = newest.of([name for name in names if name in brought])
        return TableSketch.fit(counted(rows, rows.columns), categories=rows.columns)

    def kept(kind: str, make: Callable[[], TableSketch]) -> TableSketch:
        name = outputs if kind == "outputs" else inputs
        body = _kept(desk, f"{name}.{kind}", lambda: make().to_bytes() if len(requests) else b"")
        return TableSketch.from_bytes(body) if body else TableSketch({})

    def together() -> bytes:
        rows = features()
        found = JointReference.fit(columns_of(rows, rows.columns))
        return NEVER if found is None else found.to_bytes()

    pairs = _kept(desk, f"{inputs}.joint", lambda: together() if len(requests) else b"")
    joint = JointReference.from_bytes(pairs) if pairs not in (b"", NEVER) else None
    score = desk.orrery.anomaly_scores(model.name, champion.number)

    def apart() -> bytes:
        assert score is not None
        found = Usual.fit(score, inputs_of(newest.of(score.columns), score))
        return NEVER if found is None else msgspec.json.encode(found)

    def untouched() -> bytes:
        found = _untouched(desk, model.name, champion, policy, joint) if len(requests) else None
        return found.to_bytes() if found is not None else NEVER if len(requests) else b""

    held = _kept(desk, f"{outputs}.untouched", untouched)
    usual = _kept(desk, f"{inputs}.usual", apart) if score is not None else NEVER
    return {
        "score": score,
        "usual": Usual.from_bytes(usual) if usual != NEVER else None,
        "reference": kept("sketch", lambda: _sketch(features())),
        "segments": kept("segments", lambda: groups(policy.model.segments)),
        "protected": kept("protected", lambda: groups(policy.model.protected)),
        "outputs": kept("outputs", lambda: _outputs(desk, model.name, champion, policy)),
        "joint": joint,
        "untouched": Untouched.from_bytes(held) if held not in (b"", NEVER) else None,
    }


def _kept(desk: Desk, name: str, make: Callable[[], bytes]) -> bytes:
    """Return a reference, made if it is not there; what is empty could not be made yet, and is not kept."""
    path = desk.settings.folder("references") / name
    if path.exists():
        return path.read_bytes()
    if body := make():
        fresh = path.with_name(f"{name}.new")
        fresh.write_bytes(body)
        fresh.replace(path)
    return body


def _sketch(rows: pl.DataFrame) -> TableSketch:
    return TableSketch.fit(counted(rows, rows.columns))


def _outputs(desk: Desk, model: str, champion: Version, policy: Spec) -> TableSketch:
    """Return the champion's answers on the untouched rows that it was judged on."""
    path = desk.evidence(model, champion.run) / "probe_output.npy"
    if not path.exists():
        return TableSketch({})
    outputs = np.load(path).astype(np.float64)
    return TableSketch.fit(output_columns(policy.model.task, outputs, champion.facts.get("classes") or []))


def _untouched(
    desk: Desk, model: str, champion: Version, policy: Spec, joint: JointReference | None
) -> Untouched | None:
    """Return the untouched rows that the champion was judged on, with their inputs where they have all of them."""
    folder, target = desk.evidence(model, champion.run), policy.model.target
    if policy.model.task == "regression" or not (folder / "holdout.parquet").exists():
        return None
    rows = pl.scan_parquet(folder / "holdout.parquet")
    names = rows.collect_schema().names()
    inputs = joint.columns if joint is not None and set(joint.columns) <= set(names) else ()
    frame = rows.select(target, *(name for name in inputs if name != target)).collect()
    spread = np.arange(0, len(frame), max(1, math.ceil(len(frame) / KEPT)))
    frame = frame[spread]
    encoded = None
    if joint is not None and inputs:
        encoded = joint.encode(columns_of(as_trained(frame, joint.numbers), joint.columns))
    outputs = np.load(folder / "probe_output.npy").astype(np.float64)[spread]
    return Untouched(outputs, encode(frame[target].to_list(), champion.facts.get("classes") or []), encoded)


def _brought(requests: pl.DataFrame) -> list[str]:
    return [name for name in requests.columns if requests[name].null_count() < len(requests)]


class _Newest:
    """The newest rows of the dataset's version that the champion learned from, read when first asked for, and once.

    Parameters
    ----------
    desk, champion, policy : whose manifest says the dataset and its columns.
    learned : versions of the datasets that it learned from.
    """

    def __init__(self, desk: Desk, champion: Version, learned: Mapping[str, int], policy: Spec) -> None:
        self._desk, self._champion, self._learned, self._time = desk, champion, learned, policy.model.time

    def of(self, names: Sequence[str]) -> pl.DataFrame:
        """Return these columns, as far as the dataset has them."""
        return self._rows.select([name for name in self._rows.columns if name in names])

    @cached_property
    def _rows(self) -> pl.DataFrame:
        manifest = read_manifest(self._desk.artifact(self._champion))
        frame = self._desk.orrery.lake.read(manifest.dataset, self._learned[manifest.dataset]).lazy()
        if self._time:
            frame = frame.sort(self._time)
        return frame.select(list(manifest.columns)).tail(REFERENCE_ROWS).collect()


def countable(column: pl.Series) -> bool:
    """Say whether drift of a column can be told: not of instants, nor of columns whose values hardly ever repeat."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return True
    return column.dtype == pl.String and column.n_unique() <= max(50, len(column) // 20)
