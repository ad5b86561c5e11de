"""Train a run to a version: the project's code in a process of its own, its result in the registry."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from orrery.actions.desk import TRAINING, Desk, limits_of, threads
from orrery.actions.repair import repair
from orrery.errors import ProjectFailed
from orrery.pipeline.artifact import read_manifest
from orrery.pipeline.verdict import read_verdict
from orrery.spec import Spec, to_dict
from orrery.stats import paired_interval
from orrery.stats.measure import bound_of, encode, row_losses
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState, Run
from orrery.workers.action import Action
from orrery.workers.contained import run as run_contained

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
        result = attempt
    else:
        result = run_project(desk, model, run, spec, out)
    champion = model.champion()
    facts = _facts(model, run, spec, out, result)
    pins = ", ".join(f"{name}@v{number}" for name, number in run.data.items())
    how = f"{run.change} of version {champion.number}" if champion else "the first version"

    def draft_for(number: int) -> Draft:
        return Draft(
            kind="trained",
            actor="orrery/training",
            why=f"Version {number} of {run.commit[:7]} on {pins}: {how}, because {run.reason}. {run.why}",
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
        **_promised(out, spec),
        "compiled": _compiled(out, result),
        "lock": (model.commits[run.commit].built or {}).get("lock", ""),
    }


def run_project(desk: Desk, model: ModelState, run: Run, spec: Spec, out: Path, sample: float = 1.0) -> dict[str, Any]:
    """Run the project's pipeline in its environment, on a share of the rows, and return what it said.

    Raises
    ------
    ProjectFailed
        If it fails.
    """
    checkout = desk.checkout(model.name, run.commit)
    environment = desk.environment(checkout)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    datasets: dict[str, dict[str, str]] = {}
    for argument, name in spec.data.items():
        version = desk.orrery.lake.version(name, run.data[name])
        datasets[argument] = {
            "path": str(_exported(desk, name, version.version, version.digest)),
            "key": version.digest,
        }
    window = {"refresh": spec.rollout.refresh.window}.get(run.change, spec.rollout.redesign.window)
    job = {
        "checkout": str(checkout),
        "spec": to_dict(spec),
        "datasets": datasets,
        "params": {**spec.pipeline.params, **run.params},
        "change": run.change,
        "commit": run.commit,
        "window": window,
        "refit": spec.gates.refit and sample == 1.0,
        "sample": sample,
        "cache": str(desk.settings.folder("cache")),
        "environment": environment.frozen,
        "out": str(out),
        "seed": 0,
    }
    (out / "job.json").write_text(json.dumps(job))
    finished = run_contained(
        [environment.python, "-m", TRAINING, out / "job.json"],
        cwd=out,
        env={"PYTHONHASHSEED": "0", **_threads(desk), "MLFLOW_TRACKING_URI": f"{desk.settings.control_url}/mlflow"},
        limits=limits_of(spec, spec.resources.wall),
        log=out / "log.txt",
        expects=out / "result.json",
        warm=desk.warm,
    )
    if not (out / "result.json").exists():
        raise ProjectFailed(f"The training {finished.reason or 'left no result'}.", output=finished.tail)
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    if not result.get("ok"):
        error = result.get("error") or {}
        step = f"in {error['step']}: " if error.get("step") else ""
        words = error.get("message") or finished.reason or "unknown"
        raise ProjectFailed(f"{step}{words}", output="\n".join(error.get("traceback") or []) or finished.tail)
    return result


def _compiled(out: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return how the version will be served; a repair is served as what it repairs."""
    verdict = read_verdict(out / "artifact")
    return dict(result.get("compiled") or {}) if verdict is None else verdict.as_fact()


def _row_wise(consistency: dict[str, Any]) -> float | None:
    """Return how much features of a row depend on others; where that cannot be told in numbers, more than any limit."""
    apart = consistency.get("max_difference")
    told = apart is not None and math.isfinite(apart)
    return apart if told or consistency.get("row_wise", True) else 1e9


def _threads(desk: Desk) -> dict[str, str]:
    """Return how many threads a training may use: workers train at the same time, and threads that wait spin."""
    return threads(max(1, (os.cpu_count() or 1) // desk.settings.workers))


def _exported(desk: Desk, name: str, version: int, key: str) -> Path:
    """Return a version of a dataset as a file that the project's process can read, made if it is not there."""
    path = desk.settings.folder("cache") / "datasets" / f"{key}.parquet"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_suffix(f".{version}.new")
        desk.orrery.lake.read(name, version).polars().write_parquet(fresh, compression="lz4")
        fresh.replace(path)
    return path


def _promised(out: Path, spec: Spec) -> dict[str, Any]:
    """Return what the version promises: its loss on untouched rows, with the largest error that will count."""
    manifest = read_manifest(out / "artifact")
    rows = pl.read_parquet(out / "holdout.parquet")
    labels = encode(rows[spec.model.target].to_list(), manifest.classes)
    outputs = np.load(out / "probe_output.npy")
    primary = spec.rollout.primary
    scale = 1.0
    if spec.model.task == "regression":
        scale = float(np.quantile(row_losses(primary, outputs, labels), 0.99)) or 1.0
    losses = row_losses(primary, outputs, labels, cap=bound_of(primary, scale))
    interval = paired_interval(losses)
    high = interval.high if np.isfinite(interval.high) else float(losses.mean())
    return {"classes": list(manifest.classes), "scale": scale, "expected_loss": high}


def _flat(params: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in params.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found
