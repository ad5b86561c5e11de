"""Versions of models: how one comes to be, where its files are, and which names point at it.

MLflow is imported only where a version is registered; the rest is plain SQL on its tables, so that whoever moves a
pointer can do it inside the transaction of the event that says why::

    timeline.append([draft], within=lambda connection, events: set_alias(connection, "flight-delay", "champion", 4))
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from orrery.errors import NotFound, NotUnderstood
from orrery.settings import Settings
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline, events
from orrery.types import check_name

POINTERS = ("champion", "challenger")
"""Aliases that every project has beside the names of its environments."""
ARTIFACT_ROOT = "mlflow-artifacts:/"
"""Where clients of MLflow find artifacts: behind orrery's address, in the folder ``artifacts`` of the home."""
SEAL = ".sealed"
"""A file of this name in a folder says that registry clients must not change what is in it."""
KEY_TAG = "orrery.key"

_ALIASES = "registered_model_aliases"
_HERE = "workspace = 'default' AND name = :model"


class _Run(NamedTuple):
    id: str
    artifact_uri: str
    folder: Path


class Registry:
    """Registers versions; for processes that live long, since it imports MLflow.

    Parameters
    ----------
    settings : whose home gets the files, and whose database the versions.
    timeline : of the same database.
    """

    def __init__(self, settings: Settings, timeline: Timeline) -> None:
        from orrery.registry.database import store_uri
        from orrery.registry.store import TimelineRegistryStore, TimelineTrackingStore

        uri = store_uri(settings.database, settings.home / "clock" if settings.replay else None)
        self.settings = settings
        self.timeline = timeline
        self._versions = TimelineRegistryStore(uri)
        self._runs = TimelineTrackingStore(uri, ARTIFACT_ROOT)

    def register(
        self,
        model: str,
        artifact: Path,
        *,
        run: Mapping[str, Any],
        draft_for: Callable[[int], Draft],
        key: str,
    ) -> int:
        """Keep what a training made: a run, its files, the version, and the event that says so.

        The version and its event are one transaction. With the same key again, after a crash between any two steps
        too, the rest is done and nothing is made twice.

        Parameters
        ----------
        model : name of the model.
        artifact : folder to copy; it may hold an ``MLmodel`` file for MLflow's clients.
        run : ``name`` of the run, ``params``, ``metrics``, ``tags``, ``commit``; each may be missing.
        draft_for : makes the event ``trained``, given the number of the version. Its id becomes the key; the data gets
            ``artifact`` (folder, relative to the home) and ``tracking_run`` in addition.
        key : what makes this training this training; at most 64 characters.

        Returns
        -------
        The number of the version.

        Raises
        ------
        NotUnderstood
            If the artifact is not a folder, or holds a symbolic link.
        """
        check_name(model)
        with self.timeline.reading() as connection:
            known = _version_of(connection, key)
        if known is not None:
            return known
        logged = self._log(model, run, key)
        _keep(artifact, logged.folder)
        tags = {str(name): str(value) for name, value in {**run.get("tags", {}), KEY_TAG: key}.items()}
        with self.timeline.writing() as connection:
            known = _version_of(connection, key)
            if known is not None:
                return known
            source = f"{logged.artifact_uri}/model"
            version = self._versions.add_version(connection, model, source, logged.id, tags)
            draft = draft_for(version)
            where = (logged.folder / "artifacts" / "model").relative_to(self.settings.home).as_posix()
            data = {**draft.data, "artifact": where, "tracking_run": logged.id}
            draft = msgspec.structs.replace(draft, id=key, model=model, version=version, data=data)
            self.timeline.append([draft], connection=connection)
        return version

    def _log(self, model: str, run: Mapping[str, Any], key: str) -> _Run:
        """Return the tracking run of a key, logged in full."""
        from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType

        experiment = self._experiment(model)
        now = int(self.timeline.clock.now().timestamp() * 1000)
        tags = {**run.get("tags", {}), KEY_TAG: key, "mlflow.user": "orrery", "mlflow.source.type": "PROJECT"}
        if commit := run.get("commit"):
            tags["mlflow.source.git.commit"] = commit
        same = f"tags.`{KEY_TAG}` = '{key}'"
        found = self._runs.search_runs([experiment], same, ViewType.ACTIVE_ONLY, max_results=1)
        marks = [RunTag(str(name), str(value)) for name, value in tags.items()]
        name = run.get("name") or key[:12]
        logged = found[0] if found else self._runs.create_run(experiment, "orrery", now, marks, name)
        run_id, start = logged.info.run_id, logged.info.start_time
        params = [Param(str(name), str(value)[:6000]) for name, value in run.get("params", {}).items()]
        metrics = [Metric(str(name), float(value), start, 0) for name, value in run.get("metrics", {}).items()]
        for first in range(0, max(len(params), len(metrics)), 100):
            self._runs.log_batch(run_id, metrics[first : first + 100], params[first : first + 100], [])
        self._runs.update_run_info(run_id, RunStatus.FINISHED, max(now, start), name)
        uri = logged.info.artifact_uri
        folder = self.settings.folder("artifacts") / uri.removeprefix(ARTIFACT_ROOT).strip("/")
        return _Run(run_id, uri, folder.parent)

    def _experiment(self, model: str) -> str:
        """Return the id of the experiment that is named like the model."""
        from mlflow.entities import LifecycleStage
        from mlflow.exceptions import MlflowException

        found = self._runs.get_experiment_by_name(model)
        if found is None:
            try:
                return str(self._runs.create_experiment(model))
            except MlflowException:  # somebody else was faster, or it is a real fault, which the next line shows
                found = self._runs.get_experiment_by_name(model)
                if found is None:
                    raise
        if found.lifecycle_stage == LifecycleStage.DELETED:
            self._runs.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def set_alias(connection: sa.Connection, model: str, alias: str, version: int | None) -> None:
    """Point an alias of MLflow's registry at a version, or at none; nothing happens where MLflow knows no such version.

    Parameters
    ----------
    connection : an open transaction: the one of the event that moves the pointer.
    """
    if not sa.inspect(connection).has_table(_ALIASES):
        return
    named = {"model": model, "alias": alias}
    connection.execute(sa.text(f"DELETE FROM {_ALIASES} WHERE {_HERE} AND alias = :alias"), named)  # nosec B608 - constants
    if version is not None:
        connection.execute(
            sa.text(
                f"INSERT INTO {_ALIASES} (workspace, name, alias, version)"  # nosec B608 - constants
                " SELECT workspace, name, :alias, version"
                f" FROM model_versions WHERE {_HERE} AND version = :version AND current_stage <> 'Deleted_Internal'"
            ),
            {**named, "version": version},
        )


def pointers_at(connection: sa.Connection, model: str, version: int | str) -> set[str]:
    """Return the aliases that point at a version."""
    if not sa.inspect(connection).has_table(_ALIASES):
        return set()
    query = sa.text(f"SELECT alias FROM {_ALIASES} WHERE {_HERE} AND version = :version")  # nosec B608 - constants
    return {row.alias for row in connection.execute(query, {"model": model, "version": int(version)})}


def project_spec(connection: sa.Connection, model: str) -> dict[str, Any] | None:
    """Return the newest ``orrery.toml`` of a model, or None where the model has no project."""
    query = sa.select(events.c.data).where(events.c.model == model, events.c.kind == "pushed")
    data = connection.execute(query.order_by(events.c.seq.desc()).limit(1)).scalar()
    return None if data is None else dict(json.loads(data).get("spec") or {})


def artifact_path(settings: Settings, timeline: Timeline, model: str, version: int) -> Path:
    """Return the folder with a version's files.

    Raises
    ------
    NotFound
        If orrery trained no such version, or its files were deleted.
    """
    path = _artifact(settings, timeline, model, version)
    if path is None:
        raise NotFound(f"{model} has no version {version} that orrery trained.")
    if not path.is_dir():
        raise NotFound(f"The files of version {version} of {model} are gone.", safe="Its record is on the timeline.")
    return path


def delete_artifact(settings: Settings, timeline: Timeline, model: str, version: int) -> None:
    """Remove a version's files and mark it deleted for MLflow's clients; its record stays. Twice is once.

    The event ``deleted`` with its reason is the caller's, to be written before.
    """
    with timeline.writing() as connection:
        mark_deleted(connection, model, version)
    path = _artifact(settings, timeline, model, version)
    if path is not None and path.is_dir():
        gone = path.with_name(f".gone-{uuid.uuid4().hex}")
        path.rename(gone)  # at once, so that nobody reads half a model
        shutil.rmtree(gone)


def mark_deleted(connection: sa.Connection, model: str, version: int) -> None:
    """Do what MLflow does when a version is deleted: its row stays, its source is forgotten, its aliases go."""
    if not sa.inspect(connection).has_table(_ALIASES):
        return
    named = {"model": model, "version": version}
    connection.execute(sa.text(f"DELETE FROM {_ALIASES} WHERE {_HERE} AND version = :version"), named)  # nosec B608 - constants
    connection.execute(
        sa.text(
            "UPDATE model_versions SET current_stage = 'Deleted_Internal',"  # nosec B608 - constants
            " source = 'REDACTED-SOURCE-PATH',"
            f" storage_location = NULL WHERE {_HERE} AND version = :version"
        ),
        named,
    )


def _artifact(settings: Settings, timeline: Timeline, model: str, version: int) -> Path | None:
    trained = next(timeline.read(model, kinds=["trained"], version=version, newest_first=True, limit=1), None)
    where = trained.data.get("artifact") if trained else None
    return settings.home / where if where else None


def _version_of(connection: sa.Connection, key: str) -> int | None:
    version: int | None = connection.execute(sa.select(events.c.version).where(events.c.id == key)).scalar()
    return version


def _keep(artifact: Path, run: Path) -> None:
    """Copy a folder to ``artifacts/model`` of a run's folder, all of it or nothing, and seal the run."""
    if not artifact.is_dir():
        raise NotUnderstood(f"{artifact} is not a folder with a model.")
    for path in artifact.rglob("*"):
        if path.is_symlink():
            raise NotUnderstood(f"The model holds a symbolic link, {path.relative_to(artifact)}: it is not kept.")
    target = run / "artifacts" / "model"
    target.parent.mkdir(parents=True, exist_ok=True)
    (run / SEAL).touch()
    if not target.is_dir():
        incoming = run / f"incoming-{uuid.uuid4().hex}"
        shutil.copytree(artifact, incoming)
        try:
            incoming.rename(target)
        except OSError:
            if not target.is_dir():  # else somebody else with the same key was faster
                raise
    for left in run.glob("incoming-*"):
        shutil.rmtree(left, ignore_errors=True)
