"""Takes a subject out of the files beside the lake: of trainings, of versions, of monitors.

What can be made again is removed; what cannot is written anew without the subject's rows. Each file is replaced whole,
so that who is killed here begins again and finds less.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from orrery.actions.desk import Desk
from orrery.data.purge import Condition
from orrery.data.subject import DATASETS, Searched, Subject
from orrery.data.traces import holds
from orrery.errors import Conflict, Damaged, NotFound
from orrery.pipeline.artifact import SCORE, read_score, write_score
from orrery.pipeline.manifest import read_manifest
from orrery.stats.sketch import group_of
from orrery.timeline.state import ModelState

OUTPUTS = ("probe_output.npy", "champion_output.npy")
HOLDOUT, SAMPLE = "holdout.parquet", "sample.parquet"


class Forgetting:
    """The files of one orrery that may hold rows of a subject.

    Parameters
    ----------
    desk, searched, subject : whose files, what the tables are called, and whom to forget.
    models : those that learned from the subject, or were asked for it.
    """

    def __init__(self, desk: Desk, searched: Searched, subject: Subject, models: Collection[str]) -> None:
        self.desk, self.searched, self.subject, self.models = desk, searched, subject, models
        self.keys = searched.keys(subject)

    def rewrite(self) -> int:
        """Take its rows out of what trainings left for the gates, and of versions; return how many files that were."""
        done = 0
        for name in self.models:
            model = self.desk.orrery.model(name)
            for folder in self.desk.evidence(name, "").glob("*"):
                done += self._evidence(model, folder)
            for version in model.versions.values():
                artifact = self.desk.settings.home / str(version.facts.get("artifact") or "-")
                if artifact.is_dir():
                    done += self._artifact(artifact)
        return done

    def clear(self, before: float) -> int:
        """Remove what can be made again; return how many files that were.

        Parameters
        ----------
        before : when the rows were gone (seconds since 1970): what is being written since then has none of them.
        """
        cache, lake = self.desk.settings.folder("cache"), self.desk.orrery.lake
        now = {version.key for name in lake.names() for version in lake.versions(name)}
        exports = (cache / "datasets").glob("*")
        gone = [path for path in exports if path.stem not in now or holds(path, self.subject.needles)]
        gone += [path for path in self.desk.results() if path.is_file()]
        gone += [path for path in self.desk.results("tmp") if path.is_file() and path.stat().st_mtime < before]
        gone += self._monitors()
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone) + self.scorings() + self._logs()

    def scorings(self) -> int:
        """Remove what scorings that did not end have done so far.

        Raises
        ------
        Conflict
            If one is under way.
        """
        count = 0
        for folder in (self.desk.settings.home / "scoring").glob("*"):
            with _held(folder / "lock"):
                count += len(list(folder.glob("*")))
                shutil.rmtree(folder)
        return count

    def _monitors(self) -> list[Path]:
        """Return what monitors of these models compare with, and how far they had come: they begin anew."""
        references, kept = self.desk.settings.folder("references"), self.desk.settings.folder("kept")
        gone = [path for name in self.models for path in references.glob(f"{name}-*.*") if _of(path, name)]
        others = [name for name in self.desk.orrery.timeline.models() if name not in self.models]
        lanes = (lane for name in others for lane in self.desk.orrery.states.model(name).lanes.values())
        used = {lane.monitors for lane in lanes}
        return [*gone, *(path for path in kept.glob("*") if path.name not in used)]

    def _logs(self) -> int:
        """Write over the subject in what programs printed."""
        home = self.desk.settings.home
        found = [*(home / "logs").glob("*"), *home.glob("*.log"), *(home / "evidence").glob("*/*/log.txt")]
        return sum(_blotted(path, self.subject) for path in found if path.is_file())

    def _evidence(self, model: ModelState, folder: Path) -> int:
        run = model.runs.get(folder.name)
        if run is not None and run.open:
            return 0  # it has not ended, and who erases waits for it
        if run is not None and (folder / "artifact").is_dir():
            shutil.rmtree(folder / "artifact")  # the registry has it; nobody looks here again
        path = folder / HOLDOUT
        if not path.exists():
            return 0
        rows = pl.read_parquet(path)
        condition = self._mine(model.name, rows.schema)
        if not condition:
            # A repair keeps labels and answers without saying whose they are: what cannot be told apart goes whole.
            if run is None or run.change != "repair":
                return 0
            for name in (*OUTPUTS, HOLDOUT):
                (folder / name).unlink(missing_ok=True)
            return 1
        left = ~rows.select(condition.rows.alias("is"))["is"]
        kept = self._unnamed(rows.filter(left))
        if kept.equals(rows):
            return 0
        for name in OUTPUTS if kept.height < rows.height else ():
            output = folder / name
            if output.exists() and len(said := np.load(output)) == rows.height:
                _replace(output, _npy(said[left.to_numpy()]))
        _replace(path, _parquet(kept))  # last: until it is done, what is to be done can be told
        return 1

    def _artifact(self, folder: Path) -> int:
        count, sample = 0, folder / SAMPLE
        try:
            manifest = read_manifest(folder)
        except (Damaged, NotFound):
            return 0  # the search says whether it holds anything
        if sample.exists():
            rows = pl.read_parquet(sample)
            left = self._unnamed(rows.filter(~self._mine(manifest.model, rows.schema).rows))
            if not left.equals(rows):
                _replace(sample, _parquet(left))
                count += 1
        try:
            score = read_score(folder)
        except Damaged:
            (folder / SCORE).unlink()
            return count + 1
        if score is not None:
            rest = self._rest(manifest.dataset)
            known = {name: rest(name) for name in score.columns}
            if (fresh := score.among(known)) is not score:
                os.unlink(folder / SCORE)  # a repair may have a link to the same file
                write_score(folder, fresh)
                count += 1
        return count

    def _unnamed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows with the cells emptied that name the subject in other people's rows."""
        texts = [name for name, kind in rows.schema.items() if kind == pl.String]
        named = [name for name in texts if (rows[name] == self.subject.pseudonym).any()]
        return rows.with_columns(pl.col(name).replace(self.subject.pseudonym, None) for name in named)

    def _mine(self, model: str, schema: Any) -> Condition:
        keyed = self.searched.models.get(model)
        wanted: dict[str, list[str]] = {}
        for dataset in keyed.datasets if keyed else ():
            if column := self.searched.contracts[dataset].subject if dataset in self.searched.contracts else "":
                wanted[column] = self.subject.names if column in self.searched.clear else [self.subject.pseudonym]
        if keyed and keyed.entity and (keys := self.keys.get(model)):
            wanted[keyed.entity] = [*wanted.get(keyed.entity, ()), *keys]
        if keyed and keyed.entity in wanted and "_entity" in schema:
            wanted["_entity"] = wanted[keyed.entity]
        return Condition(schema, wanted)

    def _rest(self, dataset: str) -> _Rest:
        table = self.desk.orrery.lake.table(DATASETS, dataset)
        contract = self.searched.contracts.get(dataset)
        column = contract.subject if contract else ""
        names = self.subject.names if column in self.searched.clear else [self.subject.pseudonym]
        return _Rest(table.scan().filter(~Condition(table.schema(), {column: names}).rows))


class _Rest:
    """The rows of all others, by what an anomaly score keeps of a column."""

    def __init__(self, rows: pl.LazyFrame) -> None:
        self._rows = rows

    @cached_property
    def _schema(self) -> pl.Schema:
        return self._rows.collect_schema()

    def __call__(self, column: str) -> tuple[float, float] | set[str] | None:
        """Return the limits of numbers or the categories; nothing where there is no such column."""
        if column not in self._schema:
            return None
        kind = self._schema[column]
        values = self._rows.select(pl.col(column).cast(pl.Float64) if kind == pl.Boolean else column)
        if kind.is_numeric() and (limits := values.select(low=pl.min(column), high=pl.max(column)).collect().row(0)):
            if limits[0] is None:
                return None
            distinct = values.select(pl.col(column).n_unique()).collect().item()
            if distinct > 1000:
                return float(limits[0]), float(limits[1])
        found = values.unique().collect().to_series()
        return {group for value in found.to_list() if (group := group_of(value)) is not None}


def _of(reference: Path, model: str) -> bool:
    """Say whether a reference, such as ``tides-3.sketch``, is of a model: another one may be called tides-3."""
    return reference.name.removeprefix(f"{model}-").partition(".")[0].isdigit()


def _replace(path: Path, body: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _blotted(path: Path, subject: Subject) -> int:
    """Write over every place where a file names the subject; who appends to it meanwhile is not disturbed."""
    count = 0
    with path.open("r+b") as file:
        data = file.read()
        for text in subject.needles.texts:
            needle = text.encode()
            at = data.find(needle)
            while at >= 0:
                file.seek(at)
                file.write(b"*" * len(needle))
                count, at = 1, data.find(needle, at + len(needle))
    return count


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold the lock of a scoring that is not under way."""
    if not lock.exists():
        yield
        return
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(
                "A dataset is being scored.",
                safe="What was erased so far stays erased.",
                todo="Wait for it, or end it, and give the same order again.",
            ) from None
        yield
