"""What of MLflow a principal may see and change: the rows of their projects, in whatever way they are asked for.

MLflow has hundreds of addresses, and its pages ask by GraphQL as well. All of them read and write through the stores,
so the rows are narrowed there, in the sessions of the stores, and not at each address:

- a session that only reads sees the rows of projects in which the principal may ``read``,
- a session that writes sees, and leaves behind, rows of projects in which they may ``track``; else it is undone.

An experiment or a registered model belongs to the project that its name begins with, up to a ``/`` or a ``.``. What
belongs to no project, as the experiment *Default*, is for those who have a role everywhere.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Protocol

import sqlalchemy as sa
from mlflow.entities.entity_type import EntityAssociationType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED
from mlflow.store.db.base_sql_model import Base
from mlflow.store.model_registry.dbmodels import models as registered
from mlflow.store.tracking.dbmodels import models as tracked
from mlflow.utils.mlflow_tags import MLFLOW_ARTIFACT_LOCATION
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.orm.util import LoaderCriteriaOption

READ, TRACK = "read", "track"
SOURCES = re.compile(r"(?:runs|models|mlflow-artifacts):", re.IGNORECASE)
"""Where the files of a registered version may be: what the server keeps itself, and nothing that it would fetch."""
_DELETED = "Deleted_Internal"


class Sight(Protocol):
    """Who asks, and where they may what; a principal of :mod:`orrery.access.roles` is one."""

    @property
    def name(self) -> str:
        """The account."""

    def may(self, permission: str, project: str = "") -> bool:
        """Say whether a permission is given in a project; without one: everywhere."""

    def projects(self, permission: str) -> frozenset[str] | None:
        """Return the projects in which it is given; nothing where it is given everywhere."""


asking: ContextVar[Sight | None] = ContextVar("asking", default=None)
"""Who asks, while a request is answered; nothing inside orrery's own processes."""


@contextlib.contextmanager
def everything() -> Iterator[None]:
    """Let what is done in this block be orrery's own doing."""
    token = asking.set(None)
    try:
        yield
    finally:
        asking.reset(token)


def project_of(name: str) -> str:
    """Return the project that an experiment or a registered model belongs to.

    Examples
    --------
    >>> project_of("tides"), project_of("tides/notebook of nora"), project_of("tides.small"), project_of("tides-2")
    ('tides', 'tides', 'tides', 'tides-2')
    """
    return re.split(r"[/.]", name, maxsplit=1)[0]


class SightedSession(Session):
    """A session of MLflow's stores; ``info["permission"]`` says what it is for, once it is known."""


@sa.event.listens_for(SightedSession, "do_orm_execute")
def _narrow(state: ORMExecuteState) -> None:
    sight, permission = asking.get(), state.session.info.get("permission")
    if sight is None or permission is None or not (state.is_select or state.is_update or state.is_delete):
        return
    projects = sight.projects(permission)
    if projects is not None:
        state.statement = state.statement.options(*_criteria(projects))


@sa.event.listens_for(SightedSession, "after_flush")
def _check(session: Session, context: Any) -> None:
    """Undo what was written into a project of others, or points at files of others."""
    sight = asking.get()
    if sight is None or session.info.get("permission") is None:
        return
    written = [*session.new, *session.dirty]
    for one in written:
        _check_location(session, one)
    asked = ((TRACK, {place for one in written for place in _places(one)}), (READ, set(_sources(written))))
    for permission, places in asked:
        projects = sight.projects(permission)
        within = {} if projects is None else _within(projects)
        for kind, value in sorted(places, key=str) if within else ():
            if not session.connection().execute(sa.select(within[kind].where(_KEY[kind] == value).exists())).scalar():
                raise not_yours(sight)


def not_yours(sight: Sight, what: str = "This") -> MlflowException:
    """Return what is said to who asks for what is not there, or not theirs to change: one cannot tell which."""
    mine = sorted(sight.projects(TRACK) or ())
    todo = f" Yours begin with the name of a project: {', '.join(mine[:5])}." if mine else ""
    return MlflowException(
        f"{what} is not there, or {sight.name} may not track in its project. Nothing was changed.{todo}",
        PERMISSION_DENIED,
    )


# --- which row belongs where -----------------------------------------------------------------------------------------

_EXPERIMENTS = tracked.SqlExperiment.__table__.alias("own_experiments")
_RUNS = tracked.SqlRun.__table__.alias("own_runs")
_TRACES = tracked.SqlTraceInfo.__table__.alias("own_traces")
_LINKS = tracked.SqlEntityAssociation.__table__.alias("own_links")
_INPUTS = tracked.SqlInput.__table__.alias("own_inputs")
_MODELS = registered.SqlRegisteredModel.__table__.alias("own_models")
_KEY: dict[str, sa.ColumnElement[Any]] = {
    "experiment": _EXPERIMENTS.c.experiment_id,
    "run": _RUNS.c.run_uuid,
    "trace": _TRACES.c.request_id,
    "model": _MODELS.c.name,
    "dataset": _LINKS.c.source_id,
    "input": _INPUTS.c.input_uuid,
    "linked": sa.cast(_EXPERIMENTS.c.experiment_id, sa.String),
}
"""What rows belong to -> its key; ``linked`` is an experiment as a link between things writes it."""
_BELONGS: dict[str, tuple[tuple[str, str], ...]] = {
    "experiment_id": (("experiment_id", "experiment"),),
    "run_uuid": (("run_uuid", "run"),),
    "trace_info": (("experiment_id", "experiment"),),
    "trace_tags": (("request_id", "trace"),),
    "trace_request_metadata": (("request_id", "trace"),),
    "trace_metrics": (("request_id", "trace"),),
    "span_metrics": (("trace_id", "trace"),),
    "assessments": (("trace_id", "trace"),),
    "registered_models": (("name", "model"),),
    "registered_model_tags": (("name", "model"),),
    "registered_model_aliases": (("name", "model"),),
    "model_versions": (("name", "model"),),
    "model_version_tags": (("name", "model"),),
    "inputs": (("destination_id", "run"), ("source_id", "run")),
    "input_tags": (("input_uuid", "input"),),
    "entity_associations": (("destination_id", "linked"), ("destination_id", "run"), ("source_id", "trace")),
    "evaluation_datasets": (("dataset_id", "dataset"),),
    "evaluation_dataset_tags": (("dataset_id", "dataset"),),
    "evaluation_dataset_records": (("dataset_id", "dataset"),),
}
"""Table, or else a column that a table has -> columns and what they name; a row belongs where one of them does."""


def belongs(mapped: Any) -> tuple[tuple[str, str], ...]:
    """Return by which columns a row of a class belongs somewhere; by none where nobody sees it who is narrowed."""
    table = mapped.__table__
    if found := _BELONGS.get(table.name):
        return found
    return next((_BELONGS[one] for one in ("run_uuid", "experiment_id") if one in table.columns), ())


def _within(projects: frozenset[str]) -> dict[str, sa.Select[Any]]:
    """Return, of each kind, what belongs to these projects."""

    def named(column: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        begins = [column.startswith(f"{one}{mark}", autoescape=True) for one in sorted(projects) for mark in "/."]
        return sa.or_(column.in_(sorted(projects)), *begins)

    def of(kind: str, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        return sa.select(_KEY[kind]).where(condition)

    experiments = of("experiment", named(_EXPERIMENTS.c.name))
    runs = of("run", _RUNS.c.experiment_id.in_(experiments))
    linked = of("linked", named(_EXPERIMENTS.c.name))
    datasets = (_LINKS.c.source_type == EntityAssociationType.EVALUATION_DATASET) & _LINKS.c.destination_id.in_(linked)
    return {
        "experiment": experiments,
        "run": runs,
        "trace": of("trace", _TRACES.c.experiment_id.in_(experiments)),
        "model": of("model", named(_MODELS.c.name)),
        "dataset": of("dataset", datasets),
        "input": of("input", _INPUTS.c.destination_id.in_(runs) | _INPUTS.c.source_id.in_(runs)),
        "linked": linked,
    }


class _Within(LoaderCriteriaOption):
    """A condition on a table wherever it is read; also where a join to it under another name has it in its ON.

    There, SQLAlchemy 2.1 leaves the columns as they are, and the statement fails.
    """

    inherit_cache = False  # no statement of one principal is another's

    def _resolve_where_criteria(self, ext_info: Any) -> Any:
        found = super()._resolve_where_criteria(ext_info)
        return ext_info._adapter.traverse(found) if ext_info.is_aliased_class else found


@lru_cache(256)
def _criteria(projects: frozenset[str]) -> tuple[Any, ...]:
    """Return what narrows a statement to projects, a part for each table of MLflow."""
    within = _within(projects)
    found = []
    for mapper in Base.registry.mappers:
        mapped = mapper.class_
        fits = [getattr(mapped, column).in_(within[kind]) for column, kind in belongs(mapped)]
        found.append(_Within(mapped, sa.or_(sa.false(), *fits), include_aliases=True))
    return tuple(found)


def _places(one: Any) -> Iterator[tuple[str, Any]]:
    """Say where a written row belongs; a link may lead to what is elsewhere, its reader will not see that."""
    ends = belongs(type(one))
    if isinstance(one, tracked.SqlEntityAssociation):
        kinds = {EntityAssociationType.EXPERIMENT: "linked", EntityAssociationType.RUN: "run"}
        ends = (("destination_id", kinds[one.destination_type]),) if one.destination_type in kinds else ()
        ends = ends or (("source_id", "trace"),)
    elif isinstance(one, tracked.SqlInput):
        ends = (("destination_id" if one.destination_type == "RUN" else "source_id", "run"),)
    for column, kind in ends or (("", ""),):
        if not kind:
            raise MlflowException(f"{type(one).__name__} is only for roles everywhere.", PERMISSION_DENIED)
        value = getattr(one, column)
        yield kind, int(value) if kind == "experiment" else value


def _sources(written: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Say from which runs and experiments registered versions were made: their files can be read through these."""
    for one in written:
        if isinstance(one, registered.SqlModelVersion) and one.current_stage != _DELETED:
            scheme, _, place = str(one.source).partition(":")
            first = place.lstrip("/").partition("/")[0]
            if scheme.lower() == "runs":
                yield "run", first
            elif scheme.lower() == "mlflow-artifacts":
                yield "experiment", int(first) if first.isascii() and first.isdigit() and len(first) < 10 else -1
            if one.run_id:
                yield "run", one.run_id


def _check_location(session: Session, one: Any) -> None:
    """Refuse a place for files of the principal's choice: the server would read there, for whoever asks."""
    if isinstance(one, tracked.SqlTraceTag) and one.key == MLFLOW_ARTIFACT_LOCATION:
        root = _root(session, _TRACES.c.request_id == one.request_id)
        if one.value != f"{root}/traces/{one.request_id}/artifacts":
            raise _no_place(one.value)
    elif isinstance(one, registered.SqlModelVersion) and one.current_stage != _DELETED:
        places = [place for place in (one.source, one.storage_location) if place]
        if not all(SOURCES.match(place) for place in places):
            raise _no_place(one.source)


def _root(session: Session, trace: sa.ColumnElement[bool]) -> str:
    query = sa.select(_EXPERIMENTS.c.artifact_location).join(
        _TRACES, _TRACES.c.experiment_id == _EXPERIMENTS.c.experiment_id
    )
    return str(session.connection().execute(query.where(trace)).scalar())


def _no_place(place: str) -> MlflowException:
    return MlflowException(
        f"Files are kept by this server, not in {place[:200]!r}. Nothing was changed. Leave the place out.",
        INVALID_PARAMETER_VALUE,
    )


def refuse_place(place: str | None) -> None:
    """Refuse a place for the files of an experiment that is asked for from outside.

    Raises
    ------
    MlflowException
        If there is one.
    """
    if place and asking.get() is not None:
        raise _no_place(place)


def owner_of(connection: sa.Connection, path: Iterable[str]) -> str:
    """Return the project that a path of kept files belongs to: its first part is an experiment; empty for none."""
    first = next(iter(path), "")
    if not (first.isascii() and first.isdigit() and len(first) < 10):
        return ""
    query = sa.select(_EXPERIMENTS.c.name).where(_EXPERIMENTS.c.experiment_id == int(first))
    return project_of(connection.execute(query).scalar() or "")
