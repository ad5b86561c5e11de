"""Train a run to a version: the project's code in a process of its own, its result in the registry."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from orrery.actions.desk import Desk
from orrery.actions.losses import own_losses
from orrery.actions.project import run_project
from orrery.actions.repair import repair
from orrery.actions.windows import try_windows, windows_of
from orrery.pipeline.artifact import read_manifest
from orrery.pipeline.verdict import read_verdict
from orrery.spec import Spec
from orrery.stats import paired_interval
from orrery.stats.measure import Own, bound_of, encode, row_losses
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState, Run
from orrery.triggers.windows import Choice
from orrery.workers.action import Action

STEP_FACTS = ("run", "name", "key", "cached", "reason", "seconds", "cpu_seconds")


def train(desk: Desk, model: ModelState, action: Action) -> list[Draft]:
    """Train the run of an action; the version and its event are one transaction of the registry."""
    run = model.runs[action.args["run"]]
    spec = model.spec_of(run.commit)
    out = desk.evidence(model.name, run.id)
    if run.change == "repair":
        attempt = repair(desk, model, spec, out)
        if isinstance(attempt, str):
            nothing = {"run": run.id, "change": run.change}
            return [
                Draft(
                    id=action.event_id(),
                    kind="not_trained",
                    actor="orrery/training",
                    why=attempt,
                    model=model.name,
                    data=nothing,
                )
            ]
        result, window, chosen = attempt, "", None
    else:
        window, chosen = _window(desk, model, run, spec)
        result = run_project(desk, model, run, spec, out, window=window)
    champion = model.champion()
    with own_losses(desk, model, run.commit, read_manifest(out / "artifact").classes) as own:
        promised = _promised(out, spec, own)
    result["metrics"] = {**(result.get("metrics") or {}), **promised.pop("metrics")}
    facts = _facts(model, run, spec, out, result) | promised | {"window": window}
    if chosen is not None:
        facts["windows"] = chosen.as_fact()
    pins = ", ".join(f"{name}@v{number}" for name, number in run.data.items())
    how = f"{run.change} of version {champion.number}" if champion else "the first version"

    which = f" {chosen.sentence()}" if chosen is not None else ""

    def draft_for(number: int) -> Draft:
        return Draft(
            kind="trained",
            actor="orrery/training",
            why=f"Version {number} of {run.commit[:7]} on {pins}: {how}, because {run.reason}. {run.why}{which}",
            model=model.name,
            version=number,
            data=facts,
        )

    desk.registry.register(
        model.name,
        out / "artifact",
        run={
            "name": f"{run.reason}-{run.id}",
            "params": {name: str(value) for name, value in _flat(result.get("params") or {})},
            "metrics": {name: float(value) for name, value in (result.get("metrics") or {}).items()},
            "tags": {"orrery.run": run.id, "orrery.reason": run.reason, "orrery.change": run.change},
            "commit": run.commit,
        },
        draft_for=draft_for,
        key=action.event_id(),
    )
    return []


def _facts(model: ModelState, run: Run, spec: Spec, out: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return what the timeline keeps of a training."""
    champion = model.champion()
    return {
        "run": run.id,
        "commit": run.commit,
        "change": run.change,
        "data": run.data,
        "parent": champion.number if champion else None,
        **{
            name: result.get(name)
            for name in ("params", "repair", "metrics", "cpu_seconds", "seconds", "rows", "trained_until", "warnings")
        },
        "uses_target": (result.get("consistency") or {}).get("uses_target") or [],
        "steps": [{name: step.get(name) for name in STEP_FACTS} for step in result.get("steps") or []],
        "row_wise": _row_wise(result.get("consistency") or {}),
        "compiled": _compiled(out, result),
        "contained": result.get("contained", ""),
        "lock": (model.commits[run.commit].built or {}).get("lock", ""),
    }


def _window(desk: Desk, model: ModelState, run: Run, spec: Spec) -> tuple[str, Choice | None]:
    """Return which rows a training learns from, and how that was chosen where it had to be."""
    if run.window:
        return run.window, None
    if run.change != "refresh":
        return spec.rollout.redesign.window, None
    if not spec.triggers.windows:
        return spec.rollout.refresh.window, None
    longest, *others = windows_of(desk, run, spec)
    if not others:
        return longest, None  # the other windows hold all rows, too
    chosen, _ = try_windows(desk, model, run, spec)
    return chosen.window, chosen


def _compiled(out: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return how the version will be served; a repair is served as what it repairs."""
    verdict = read_verdict(out / "artifact")
    return dict(result.get("compiled") or {}) if verdict is None else verdict.as_fact()


def _row_wise(consistency: dict[str, Any]) -> float | None:
    """Return how much features of a row depend on others; where that cannot be told in numbers, more than any limit."""
    apart = consistency.get("max_difference")
    told = apart is not None and math.isfinite(apart)
    return apart if told or consistency.get("row_wise", True) else 1e9


def _promised(out: Path, spec: Spec, own: Own) -> dict[str, Any]:
    """Return what the version promises: its loss on untouched rows, with the largest error that will count."""
    manifest = read_manifest(out / "artifact")
    rows = pl.read_parquet(out / "holdout.parquet")
    labels = encode(rows[spec.model.target].to_list(), manifest.classes)
    outputs = np.load(out / "probe_output.npy")
    primary = spec.rollout.primary
    scale = 1.0
    if spec.model.task == "regression":
        error = primary if primary not in own else "absolute_error"
        scale = float(np.quantile(row_losses(error, outputs, labels), 0.99)) or 1.0
    losses = row_losses(primary, outputs, labels, cap=bound_of(primary, scale, own), own=own)
    interval = paired_interval(losses)
    high = interval.high if np.isfinite(interval.high) else float(losses.mean())
    means = {primary: float(losses.mean())} if primary in own else {}
    return {"classes": list(manifest.classes), "scale": scale, "expected_loss": high, "metrics": means}


def _flat(params: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in params.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found
