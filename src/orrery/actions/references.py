"""What monitors compare production with: sketches of what the champion learned from, made once for each version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.actions.desk import Desk
from orrery.data.arrays import columns_of, counted, inputs_of
from orrery.monitors.predictions import output_columns
from orrery.pipeline.artifact import read_manifest
from orrery.spec import Spec
from orrery.stats import TableSketch
from orrery.stats.estimate import Calibration, calibration_of
from orrery.stats.joint import JointReference
from orrery.stats.measure import encode
from orrery.stats.neighbours import Usual
from orrery.timeline.state import Version

NEVER = b"-"  # stands for a reference that cannot be made of this version
REFERENCE_ROWS = 50_000  # newest training rows that requests are compared with


def references(desk: Desk, model: str, champion: Version, policy: Spec, requests: pl.DataFrame) -> dict[str, Any]:
    """Return the references of a look, by their names in :class:`~orrery.monitors.monitor.View`.

    Those of the inputs have the columns that requests bring: a dataset also holds what is known only afterwards. So
    they are made when the first requests are there.
    """

    def kept(kind: str, make: Callable[[], TableSketch]) -> TableSketch:
        body = _kept(desk, f"{model}-{champion.number}.{kind}", lambda: make().to_bytes() if len(requests) else b"")
        return TableSketch.from_bytes(body) if body else TableSketch({})

    def together() -> bytes:
        newest = _features(desk, champion, policy, requests)
        found = JointReference.fit(columns_of(newest, newest.columns))
        return NEVER if found is None else found.to_bytes()

    joint = _kept(desk, f"{model}-{champion.number}.joint", lambda: together() if len(requests) else b"")
    score = desk.orrery.anomaly_score(model, champion.number)

    def apart() -> bytes:
        assert score is not None
        found = Usual.fit(score, inputs_of(_newest(desk, champion, policy, list(score.columns)), score))
        return NEVER if found is None else msgspec.json.encode(found)

    usual = _kept(desk, f"{model}-{champion.number}.usual", apart) if score is not None else NEVER
    return {
        "score": score,
        "usual": Usual.from_bytes(usual) if usual != NEVER else None,
        "reference": kept("sketch", lambda: _sketch(_features(desk, champion, policy, requests))),
        "segments": kept("segments", lambda: _groups(desk, champion, policy, requests, policy.model.segments)),
        "protected": kept("protected", lambda: _groups(desk, champion, policy, requests, policy.model.protected)),
        "outputs": kept("outputs", lambda: _outputs(desk, model, champion, policy)),
        "joint": JointReference.from_bytes(joint) if joint not in (b"", NEVER) else None,
        "calibration": _calibration(desk, model, champion, policy),
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


def _features(desk: Desk, champion: Version, policy: Spec, requests: pl.DataFrame) -> pl.DataFrame:
    """Return the newest rows that the champion learned from: what drift can be told of."""
    spec = policy.model
    names = [name for name in _brought(requests) if name not in (spec.entity, spec.time, spec.target)]
    newest = _newest(desk, champion, policy, names)
    return newest.select([name for name in newest.columns if countable(newest[name])])


def _sketch(rows: pl.DataFrame) -> TableSketch:
    return TableSketch.fit(counted(rows, rows.columns))


def _groups(desk: Desk, champion: Version, policy: Spec, requests: pl.DataFrame, names: tuple[str, ...]) -> TableSketch:
    """Return the groups of declared columns in those rows; a number is a group's code."""
    brought = _brought(requests)
    newest = _newest(desk, champion, policy, [name for name in names if name in brought])
    return TableSketch.fit(counted(newest, newest.columns), categories=newest.columns)


def _outputs(desk: Desk, model: str, champion: Version, policy: Spec) -> TableSketch:
    """Return the champion's answers on the untouched rows that it was judged on."""
    path = desk.evidence(model, champion.run) / "probe_output.npy"
    if not path.exists():
        return TableSketch({})
    outputs = np.load(path).astype(np.float64)
    return TableSketch.fit(output_columns(policy.model.task, outputs, champion.facts.get("classes") or []))


def _calibration(desk: Desk, model: str, champion: Version, policy: Spec) -> Calibration | None:
    """Return how the champion's probabilities are to be corrected, from the untouched rows and their labels."""

    def make() -> bytes:
        folder = desk.evidence(model, champion.run)
        found = None
        if policy.model.task != "regression" and (folder / "holdout.parquet").exists():
            rows = pl.read_parquet(folder / "holdout.parquet", columns=[policy.model.target])
            labels = encode(rows[policy.model.target].to_list(), champion.facts.get("classes") or [])
            found = calibration_of(np.load(folder / "probe_output.npy").astype(np.float64), labels)
        return msgspec.json.encode(found)

    return msgspec.json.decode(_kept(desk, f"{model}-{champion.number}.calibration", make), type=Calibration | None)


def _brought(requests: pl.DataFrame) -> list[str]:
    return [name for name in requests.columns if requests[name].null_count() < len(requests)]


def _newest(desk: Desk, champion: Version, policy: Spec, names: list[str]) -> pl.DataFrame:
    """Return columns of the newest rows of the dataset's version that the champion learned from."""
    manifest = read_manifest(desk.artifact(champion))
    frame = desk.orrery.lake.read(manifest.dataset, champion.data[manifest.dataset]).lazy()
    if policy.model.time:
        frame = frame.sort(policy.model.time)
    return frame.select([name for name in manifest.columns if name in names]).tail(REFERENCE_ROWS).collect()


def countable(column: pl.Series) -> bool:
    """Say whether drift of a column can be told: not of instants, nor of columns whose values hardly ever repeat."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return True
    return column.dtype == pl.String and column.n_unique() <= max(50, len(column) // 20)
