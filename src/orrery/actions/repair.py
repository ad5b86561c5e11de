"""Repair: the champion's probabilities recalibrated on its own matured labels, without a training."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import expit, logit

from orrery.actions.desk import Desk
from orrery.data.predictions import matured
from orrery.pipeline.artifact import Repair, make_repair
from orrery.spec import Spec
from orrery.stats import apply_platt, platt
from orrery.stats.checks import FloatArray
from orrery.stats.measure import encode, metric
from orrery.timeline.state import ModelState, Version
from orrery.types import PRODUCTION, format_instant, parse_duration

LEAST_DAYS = 7  # days of matured labels that a repair asks for
SHRINKAGE = 7.0  # days that the belief "nothing is wrong" weighs
JUDGED = 0.3  # newest share of the rows, which the judged repair was not fitted on


def repair(desk: Desk, model: ModelState, spec: Spec, out: Path) -> dict[str, Any] | str:
    """Fit Platt's two numbers to the recent labels of the trained model under the champion.

    The fit is to the *unrepaired* output, on days after the model's training only, and is drawn towards "nothing is
    wrong" by a weight of seven days: rows of one day are one observation. What comes out is judged as every version is,
    on the newest rows by a repair that was fitted without them.

    Returns
    -------
    What a training would say; or, where there is nothing to repair, a sentence that says why not.
    """
    champion = model.champion()
    assert champion is not None
    root = model.trained(champion)
    now = desk.orrery.clock.now()
    rows, said = _outputs(desk, model, root, spec, now)
    classes = list(champion.facts.get("classes") or [])
    days = rows["_day"].n_unique() if len(rows) else 0
    if days < LEAST_DAYS:
        return f"Nothing repaired: {days} days of matured labels, {LEAST_DAYS} are asked for."
    seen = encode(rows["label"].to_list(), classes)
    slope, intercept = _fit(said, seen, rows["_day"].to_numpy())
    present = _repair_of(champion)
    fresh, stale = apply_platt(said, slope, intercept), apply_platt(said, present.slope, present.intercept)
    change = float(np.abs(fresh - stale).mean())
    tolerance = spec.monitors.calibration_tolerance
    if change < tolerance:
        return f"Nothing repaired: it would change a probability by {change:.4f} on average, less than {tolerance:g}."
    cut = max(1, int(len(rows) * (1 - JUDGED)))
    judged = _fit(said[:cut], seen[:cut], rows["_day"][:cut].to_numpy())
    outputs = apply_platt(said[cut:], *judged)[:, None]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    # On top of the champion's own repair, for the trained version itself may have been deleted since.
    scale = slope / present.slope
    make_repair(desk.artifact(champion), scale, intercept - scale * present.intercept, out / "artifact")
    rows[cut:].rename({"label": spec.model.target}).write_parquet(out / "holdout.parquet")
    np.save(out / "probe_output.npy", outputs)
    np.save(out / "champion_output.npy", stale[cut:][:, None])
    return {
        "params": {"slope": round(slope, 6), "intercept": round(intercept, 6), "days": days, "rows": len(rows)},
        "repair": [slope, intercept],
        "metrics": {name: metric(name, outputs, seen[cut:]) for name in {spec.rollout.primary} - set(spec.losses)},
        "rows": len(rows),
        "cpu_seconds": 0.0,
        "seconds": 0.0,
        "trained_until": root.facts.get("trained_until") or format_instant(now),
        "steps": [],
    }


def _outputs(
    desk: Desk, model: ModelState, root: Version, spec: Spec, now: datetime
) -> tuple[pl.DataFrame, FloatArray]:
    """Return labelled rows (columns ``_day``, ``label``, segments) and the trained model's own output on them.

    They are the champion's logged answers with each repair taken back, and before them the untouched rows on which the
    version was judged.
    """
    window = parse_duration(spec.rollout.repair.window) or timedelta(days=3650)
    family = [version for version in model.versions.values() if model.trained(version).number == root.number]
    delay = parse_duration(spec.model.label_delay)
    columns = ["_output", *spec.gates.segments.by]
    logged = matured(
        desk.orrery.lake, model.name, PRODUCTION, now - window, now, delay, roles=("champion",), columns=columns
    )
    logged = logged.filter(pl.col("_version").is_in([version.number for version in family])).sort("_at", "_id")
    answers = logged["_output"].list.first().cast(pl.Float64).to_numpy().copy()
    for version in family:
        used = _repair_of(version)
        mine = (logged["_version"] == version.number).to_numpy()
        answers[mine] = expit((logit(np.clip(answers[mine], 1e-9, 1 - 1e-9)) - used.intercept) / used.slope)
    by = [name for name in spec.gates.segments.by if name in logged.columns or not len(logged)]
    segments = by if len(logged) else []
    rows = logged.select(pl.col("_at").dt.date().alias("_day"), pl.col("_at"), pl.col("label"), *segments)
    folder = desk.evidence(model.name, root.run)
    if not (folder / "holdout.parquet").exists() or not spec.model.time:
        return rows, answers
    held = pl.read_parquet(folder / "holdout.parquet")
    target, time = spec.model.target, spec.model.time
    if not held[time].dtype.is_temporal() or not set(by) <= set(held.columns):
        return rows, answers
    before = held.select(
        pl.col(time).dt.date().alias("_day"),
        pl.col(time).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("_at"),
        pl.col(target).cast(logged["label"].dtype if len(logged) else held[target].dtype).alias("label"),
        *by,
    )
    recent = (before["_day"] >= (now - window).date()).to_numpy()
    outputs = np.load(folder / "probe_output.npy")[:, 0]
    rows = pl.concat([before.filter(recent), rows], how="vertical_relaxed") if len(rows) else before.filter(recent)
    return rows, np.concatenate([outputs[recent], answers])


def _fit(said: FloatArray, seen: FloatArray, days: np.ndarray[Any, Any]) -> tuple[float, float]:
    slope, intercept = platt(said, seen)
    n = len(np.unique(days))
    weight = n / (n + SHRINKAGE)
    return 1.0 + weight * (max(slope, 0.05) - 1.0), weight * intercept


def _repair_of(version: Version) -> Repair:
    """Return the repair that a version's answers contain, also of one that was deleted."""
    if version.change != "repair":
        return Repair(1.0, 0.0)
    params = version.facts.get("params") or {}
    slope, intercept = version.facts.get("repair") or (params["slope"], params["intercept"])
    return Repair(float(slope), float(intercept))
