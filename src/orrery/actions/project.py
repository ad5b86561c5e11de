"""Run a project's pipeline in its environment, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from orrery.access.homekey import home_key, training_pass
from orrery.access.outgoing import elsewhere
from orrery.actions.desk import TRAINING, Desk, limits_of, threads
from orrery.errors import ProjectFailed
from orrery.pipeline.redaction import Redaction
from orrery.spec import Spec, to_dict
from orrery.timeline.state import ModelState, Run
from orrery.training.split import event_times, untouched
from orrery.types import parse_duration
from orrery.workers.contained import Finished
from orrery.workers.contained import run as run_contained
from orrery.workers.relay import TRAININGS
from orrery.workers.walls import environment_of
from orrery.workers.way_out import WayOut


def run_project(
    desk: Desk, model: ModelState, run: Run, spec: Spec, out: Path, *, sample: float = 1.0, window: str
) -> dict[str, Any]:
    """Run the project's pipeline in its environment, on a share of a window's rows, and return what it said.

    Raises
    ------
    ProjectFailed
        If it fails.
    """
    checkout = desk.checkout(model.name, run.commit)
    environment = desk.environment(model.name, spec, run.commit)
    secrets, redaction = desk.secrets(model.name, spec, "training"), desk.redaction(model.name)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    datasets = _datasets(desk, model, run, spec)
    steps = desk.steps(model.name)
    steps.mkdir(parents=True, exist_ok=True)
    network = "training" in spec.resources.network
    walls = desk.walling.around(
        [environment_of(environment.python), checkout, *(one["path"] for one in datasets.values())],
        [out, steps],
        way_out=WayOut(elsewhere) if network else None,
        door=desk.settings.port,
        behind=str(desk.settings.home / TRAININGS),
    )
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
        "cache": str(steps),
        "environment": environment.frozen,
        "out": str(out),
        "seed": 0,
    }
    (out / "job.json").write_text(json.dumps(job))
    finished = run_contained(
        [environment.python, "-m", TRAINING, out / "job.json"],
        cwd=out,
        env={"PYTHONHASHSEED": "0", **_threads(desk), **_tracking(desk, model.name, spec, bool(walls)), **secrets},
        limits=limits_of(spec, spec.resources.wall),
        log=out / "log.txt",
        expects=out / "result.json",
        warm=desk.warm,
        redaction=redaction,
        walls=walls,
    )
    return _result(out, finished, redaction) | {"contained": desk.contained(network)}


def _datasets(desk: Desk, model: ModelState, run: Run, spec: Spec) -> dict[str, dict[str, str]]:
    """Return, for each argument of the pipeline, where the pinned rows of its dataset are, and their key."""
    found = {}
    for argument, name in spec.data.items():
        if desk.orrery.team_apart(model.name, name):
            raise ProjectFailed(f"There is no dataset {name} that {model.name} may learn from.")
        version = desk.orrery.lake.version(name, run.data[name])
        path = _exported(desk, name, version.version, version.key)
        found[argument] = {"path": str(path), "key": version.key}
    return found


def _result(out: Path, finished: Finished, redaction: Redaction) -> dict[str, Any]:
    """Return what a training left, without secrets; raise what it says that went wrong."""
    _refuse_links(out)
    if not (out / "result.json").exists():
        raise ProjectFailed(f"The training {finished.reason or 'left no result'}.", output=finished.tail)
    result: dict[str, Any] = redaction.of(json.loads((out / "result.json").read_text()))
    (out / "result.json").write_text(json.dumps(result, indent=1))  # it stays, as what can be told of it
    if not result.get("ok"):
        error = result.get("error") or {}
        step = f"in {error['step']}: " if error.get("step") else ""
        words = error.get("message") or finished.reason or "unknown"
        raise ProjectFailed(f"{step}{words}", output="\n".join(error.get("traceback") or []) or finished.tail)
    return result


def _refuse_links(out: Path) -> None:
    """Refuse what a training left that leads out of its folder: we read it, and see more than it did.

    Raises
    ------
    ProjectFailed
        If there is such a thing.
    """
    for folder, inner, names in os.walk(out):
        for name in (*inner, *names):
            kind = os.lstat(os.path.join(folder, name)).st_mode
            if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
                raise ProjectFailed(f"The training left {name}, which is neither a file nor a folder.")


def _tracking(desk: Desk, project: str, spec: Spec, walled: bool) -> dict[str, str]:
    """Return where a training tracks its runs, and what it shows there."""
    found = {"MLFLOW_TRACKING_URI": f"{desk.settings.control_url}/mlflow", "MLFLOW_EXPERIMENT_NAME": project}
    if walled or desk.settings.access == "required":
        lasts = parse_duration(spec.resources.wall).total_seconds()
        found["MLFLOW_TRACKING_TOKEN"] = training_pass(home_key(desk.settings.home), project, lasts)
    return found


def span_of(desk: Desk, run: Run, spec: Spec) -> timedelta:
    """Return the time from the oldest row that may be learnt from to the newest; no end where rows have no time."""
    time = spec.model.time
    for name in spec.data.values():
        version = desk.orrery.lake.version(name, run.data[name])
        rows = pl.scan_parquet(_exported(desk, name, version.version, version.key))
        if time and {time, spec.model.target} <= set(rows.collect_schema()):
            moments = event_times(rows.select(time).collect(), spec)
            oldest, newest = moments.min(), moments.max()
            if isinstance(oldest, datetime) and isinstance(newest, datetime):
                return newest - oldest - untouched(spec)
    return timedelta.max


def _threads(desk: Desk) -> dict[str, str]:
    """Return how many threads a training may use: workers train at the same time, and threads that wait spin.

    Who shares the machine with others says it by ``OMP_NUM_THREADS``.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    return threads(
        int(said) if said.isdigit() and int(said) else max(1, (os.cpu_count() or 1) // desk.settings.workers)
    )


def _exported(desk: Desk, name: str, version: int, key: str) -> Path:
    """Return a version of a dataset as a file that the project's process can read, made if it is not there."""
    path = desk.settings.folder("cache") / "datasets" / f"{key}.parquet"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_suffix(f".{version}.new")
        desk.orrery.lake.read(name, version).polars().write_parquet(fresh, compression="lz4")
        fresh.replace(path)
    return path
