"""Predict for every row of a dataset's version, in processes of the model, and go on where a killed run was.

The rows are read in windows, checked and masked as the inference server does, handed to model processes in batches, and
what comes back is kept in order: first in the prediction log (as ``batch``), then as a part on this machine's disk.
Only when all parts are there do they become one new version of the dataset that was asked for, and only then does the
timeline say so: whoever reads that dataset never sees half of a run.

Killed at any moment, the same order goes on after the last part. The log counts the rows of a run in its own commits
and the new version carries the run's key, so a batch that was done twice is there once.

Work is divided in :class:`~orrery.actions.crew.Crew` and nowhere else. Its members are processes on this machine or,
where the settings name a Ray cluster, on that one's (:mod:`orrery.actions.on_ray`); all else is the same.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from orrery.actions.batches import OWN, SAFE, Batches, Job, answers, name_of
from orrery.actions.crew import Crew
from orrery.actions.desk import Desk
from orrery.actions.on_ray import cluster
from orrery.data.ingest import announce
from orrery.data.lake import DatasetVersion, Lake
from orrery.data.parts import Parts
from orrery.data.table import normalise
from orrery.errors import NotAllowed, NotFound, NotUnderstood, ProjectFailed
from orrery.pipeline.manifest import read_manifest
from orrery.pipeline.rows import RowRefused
from orrery.serving.contract import Broken
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState, Version
from orrery.types import check_name, digest, format_instant

BATCH_ROWS = 50_000
WINDOW_BYTES = 64 << 20
"""Rows are read in portions of about so much memory; with them, a run holds a few batches for each process."""
BLOCK_ROWS = 100_000
"""Rows of a block of the result; part of its digest, so that it does not depend on how the work was divided."""
ANSWER_WITHIN = 3600.0


@dataclass(frozen=True)
class Scored:
    """What came of it.

    Parameters
    ----------
    version : of the dataset with the predictions.
    rows, resumed : all rows of it, and how many an earlier run had done.
    broken : rows that break the contract, of all.
    seconds : this run.
    already : whether nothing was left to do.
    cluster : address of the Ray cluster that predicted; empty: this machine.
    """

    version: DatasetVersion
    rows: int
    resumed: int
    broken: int
    seconds: float
    already: bool
    cluster: str = ""


def plan(desk: Desk, name: str, which: str, data: str, out: str, *, environment: str, log: bool) -> Job:
    """Look whether a run can be done.

    Parameters
    ----------
    name, which : the model, and its version: a number, or ``champion``.
    data : dataset, or ``dataset@version``.
    out : dataset for the predictions.

    Raises
    ------
    NotFound, NotUnderstood
        If one of them is not there or cannot be read.
    NotAllowed
        If the version may not answer in the environment, or the predictions cannot become rows of ``out``.
    """
    check_name(out, "name of a dataset")
    model = desk.orrery.model(name)
    version = _version(model, which, environment)
    rows = _rows(desk.orrery.lake, data)
    spec = model.spec_of(version.commit)
    if out == rows.name or out in spec.data.values():
        raise NotAllowed(
            f"{out} is what {name} learns from or what is to be scored; predictions do not belong there.",
            safe="Nothing was done.",
            todo="Give another name with --out.",
        )
    manifest = read_manifest(desk.artifact(version))
    taken = [column for column in rows.columns if column in manifest.columns and column != manifest.target]
    if not taken:
        raise NotUnderstood(
            f"{rows.name}@v{rows.version} has none of the columns of {name}.",
            todo=f"The model takes {', '.join(manifest.columns)}.",
        )
    named = [column for column in (spec.model.entity, spec.model.time) if column in rows.columns]
    job = Job(model, version, rows, out, environment, log, manifest, tuple(dict.fromkeys([*named, *taken])))
    clash = sorted(set(named) & {*OWN, *answers(manifest)})
    if clash:
        raise NotAllowed(
            f"{clash[0]} is a column of the predictions, and here the dataset's entity or time.",
            todo="Rename it in the dataset.",
        )
    _check_out(desk.orrery.lake, job)
    return job


def finished(desk: Desk, job: Job) -> DatasetVersion | None:
    """Return the version with the predictions of a run that was done before; what it left to write is written."""
    lake = desk.orrery.lake
    version = lake.committed(job.out, job.key) if job.out in lake.names() else None
    if version is not None:
        _announce(desk, job, version)
    return version


def done(desk: Desk, job: Job) -> int:
    """Return how many rows of a run are done; nothing is changed by asking."""
    lake = desk.orrery.lake
    if job.out in lake.names() and lake.committed(job.out, job.key) is not None:
        return job.rows.rows
    return parts(desk, job).done


def parts(desk: Desk, job: Job) -> Parts:
    """Return what an earlier run has done of this."""
    return Parts(desk.settings.home / "scoring" / digest([job.key + job.mark, job.environment, str(job.log)]))


def score(
    desk: Desk,
    job: Job,
    *,
    actor: str,
    why: str = "",
    rows_per_batch: int = BATCH_ROWS,
    processes: int = 0,
    went: Callable[[int], None] = lambda rows: None,
) -> Scored:
    """Do a run, or what is left of it.

    Parameters
    ----------
    actor, why : who wants it, and for what.
    rows_per_batch : rows that a model process gets at once.
    processes : of the model; 0 for one for each core, of this machine or of the cluster.
    went : called with the number of rows that are done.

    Raises
    ------
    NotUnderstood, ContractBroken
        If the model or the contract refuses a row; it is named by its number in the dataset, from 0.
    ProjectFailed
        If the model's code fails.
    Conflict
        If the same run is being done by another process.
    """
    began = time.perf_counter()
    with parts(desk, job) as kept:
        if (version := finished(desk, job)) is not None:
            kept.discard()
            return Scored(version, job.rows.rows, job.rows.rows, _facts(job, version)["broken"], 0.0, True)
        resumed = kept.done
        went(resumed)
        left = -(-(job.rows.rows - resumed) // rows_per_batch)
        writer = Batches(desk, job)
        with _crew(desk, job, processes, max(left, 1)) as (crew, count):
            waiting: deque[tuple[int, pl.DataFrame, Broken | None, Future[npt.NDArray[np.float64]]]] = deque()
            for at, frame in _batches(desk.orrery.lake, job, resumed, rows_per_batch):
                given, found = writer.checked(at, frame)
                waiting.append((at, frame, found, crew.submit(given)))
                if len(waiting) > 2 * count:
                    _take(waiting, writer, kept, went)
            while waiting:
                _take(waiting, writer, kept, went)
        seconds = time.perf_counter() - began
        version = _publish(desk, job, kept, actor, why, seconds)
        kept.discard()
    broken = _facts(job, version)["broken"]
    return Scored(version, job.rows.rows, resumed, broken, seconds, False, desk.settings.ray)


@contextlib.contextmanager
def _crew(desk: Desk, job: Job, processes: int, batches: int) -> Iterator[tuple[Crew, int]]:
    """Yield who predicts, and how many: processes on this machine, or on those of the Ray cluster in the settings."""
    command = desk.command(job.model, job.version)
    if not desk.settings.ray:
        count = min(processes or len(os.sched_getaffinity(0)), batches)
        with Crew(lambda: command.process(ANSWER_WITHIN, desk.warm), count) as crew:
            yield crew, count
        return
    with cluster(desk.settings.ray) as found:
        if processes > found.processors:
            raise NotAllowed(
                f"The Ray cluster has {found.processors} processors, and {processes} processes are asked for.",
                safe="Nothing was done.",
            )
        count = min(processes or found.processors, batches)
        with Crew(lambda: found.member(command, ANSWER_WITHIN), count) as crew:
            yield crew, count


def _take(waiting: deque[Any], writer: Batches, kept: Parts, went: Callable[[int], None]) -> None:
    """Wait for the oldest batch and keep what came of it."""
    at, frame, broken, future = waiting.popleft()
    try:
        said = future.result()
    except RowRefused as error:
        where = "" if error.row is None else f"Row {at + error.row}: "
        raise NotUnderstood(
            f"{where}{error.what.replace(f', row {error.row}:', ':')}",
            safe=SAFE,
            todo="Correct the row in a new version of the dataset.",
        ) from None
    except ProjectFailed as error:
        what = f"Rows {at} to {at + frame.height - 1}: {error.what}"
        raise ProjectFailed(what, output=error.output, safe=SAFE, todo=error.todo) from None
    kept.add(writer.write(at, frame, broken, said))
    went(at + frame.height)


def _batches(lake: Lake, job: Job, start: int, rows: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the batches from a row on; as much is read at once as a window holds."""
    window = rows
    while start < job.rows.rows:
        frame = lake.part(job.rows, start, start + window).lazy().select(job.columns).collect()
        for at in range(0, frame.height, rows):
            yield start + at, frame.slice(at, rows)
        start += frame.height
        size = max(1.0, frame.estimated_size() / max(frame.height, 1))
        window = max(1, int(WINDOW_BYTES / size) // rows) * rows


def _publish(desk: Desk, job: Job, kept: Parts, actor: str, why: str, seconds: float) -> DatasetVersion:
    at = desk.orrery.clock.now()
    words = f"{job.rows.rows} rows of {name_of(job.rows)} scored by version {job.version.number} of {job.model.name}"
    summed = {"broken": 0, "rows": 0}
    for block in kept.blocks(BLOCK_ROWS):
        summed["broken"] += block.height - block["broken"].null_count()
        summed["rows"] += block.height
    about = {
        "actor": actor,
        "why": f"{words}: {why}" if why else f"{words}.",
        "occurred_at": format_instant(at),
        "key": job.key,
        "quarantined": 0,
        "reasons": {},
        "rows": summed["rows"],
        "scored": {**summed, "seconds": round(seconds, 3), "logged": job.log},
    }
    lake = desk.orrery.lake
    version = lake.append_blocks(job.out, lambda: kept.blocks(BLOCK_ROWS), key=job.key, note=words, about=about, at=at)
    _announce(desk, job, version)
    return version


def _announce(desk: Desk, job: Job, version: DatasetVersion) -> None:
    """Write the events of a result that is there, if they are not; the version carries all that they say."""
    announce(desk.orrery.lake, desk.orrery.timeline, job.out)
    about = _about(job, version)
    desk.orrery.append(
        [
            Draft(
                id=digest(f"scored/{job.key}"),
                kind="scored",
                actor=str(about["actor"]),
                why=f"{str(about['why']).rstrip('.')}, into {name_of(version)}.",
                model=job.model.name,
                version=job.version.number,
                environment=job.environment,
                occurred_at=version.at,
                data={
                    "dataset": job.rows.name,
                    "dataset_version": job.rows.version,
                    "out": job.out,
                    "out_version": version.version,
                    **about["scored"],
                },
            )
        ]
    )


def _about(job: Job, version: DatasetVersion) -> Mapping[str, Any]:
    return next(one for one in version.about if one.get("key") == job.key)


def _facts(job: Job, version: DatasetVersion) -> dict[str, Any]:
    return dict(_about(job, version)["scored"])


def _check_out(lake: Lake, job: Job) -> None:
    if job.out not in lake.names():
        return
    there = lake.version(job.out)
    types = lake.read(job.out).lazy().collect_schema()
    head = lake.part(job.rows, 0, 0).lazy().select(job.columns).collect()
    spec = job.model.spec_of(job.version.commit).model
    named = [head[name] for name in dict.fromkeys((spec.entity, spec.time)) if name in head.columns]
    said = [pl.Series(name, values) for name, values in answers(job.manifest).items()]
    own = [pl.Series(name, [], dtype=pl.String if name == "broken" else pl.Int64) for name in OWN]
    wanted = normalise(pl.DataFrame([*named, *said, *own])).schema
    if dict(types) != dict(wanted):
        differ = sorted({name for name in {*types, *wanted} if types.get(name) != wanted.get(name)})
        raise NotAllowed(
            f"The dataset {name_of(there)} has other columns than these predictions: {', '.join(differ)}.",
            safe="Nothing was done.",
            todo="Give another name with --out.",
        )


def _version(model: ModelState, which: str, environment: str) -> Version:
    lane = model.lane(environment)
    if which in ("", "champion"):
        champion = model.champion(environment)
        if champion is None:
            raise NotFound(
                f"{model.name} has no champion in {environment}.", todo=f"Name a version: {model.name}@NUMBER."
            )
        return champion
    text = which.removeprefix("v")
    if not text.isdigit():
        raise NotUnderstood(f"{which!r} is no version.", todo=f"Write {model.name}@3, or {model.name}@champion.")
    version = model.versions.get(int(text))
    if version is None:
        raise NotFound(f"{model.name} has no version {int(text)}.", todo=f"`orrery versions {model.name}` lists them.")
    if version.deleted:
        raise NotFound(f"Version {version.number} of {model.name} was deleted: {version.deleted['why']}")
    if environment != "development" and not (environment in version.entered or version.number in lane.challengers):
        raise NotAllowed(
            f"Version {version.number} of {model.name} was never released to {environment}.",
            safe="Nothing was done.",
            todo="Promote it first, or score with --env development: its predictions are then no production's.",
        )
    return version


def _rows(lake: Lake, data: str) -> DatasetVersion:
    name, mark, number = data.partition("@")
    text = number.removeprefix("v")
    if mark and not text.isdigit():
        raise NotUnderstood(f"{number!r} is no version of a dataset.", todo=f"Write {name}@3.")
    return lake.version(check_name(name, "name of a dataset"), int(text) if mark else None)
