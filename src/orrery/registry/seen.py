"""What was read of MLflow that may hold rows: files of runs, models and traces, traced calls, rows of evaluations.

MLflow has many addresses for each, and its pages ask by GraphQL as well; all of them load it in sessions of the stores.
So it is noticed there, while a request is answered, and not at each address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa
from mlflow.entities.entity_type import EntityAssociationType
from mlflow.store.model_registry.dbmodels import models as registered
from mlflow.store.tracking.dbmodels import models as tracked
from sqlalchemy.orm import ORMExecuteState
from sqlalchemy.orm.context import QueryContext

from orrery.registry.sight import READ, SightedSession, project_of

FILES, TRACES, ROWS = "artifacts", "traces", "evaluation rows"

Seen = set[tuple[str, str, Any]]

noticed: ContextVar[Seen | None] = ContextVar("noticed", default=None)
"""What a request has loaded: what it is, what it belongs to, and the key of that; nothing where nobody asks."""

GIVES_FILES = re.compile(
    r"(?:/model-versions)?/get-artifact|/(?:ajax-)?api/[23]\.0/mlflow/get-trace-artifact"
    r"|/(?:ajax-)?api/[23]\.0/mlflow/logged-models/[^/]+/artifacts/files"
)
"""Addresses that answer with a file of what they name; those of the artifact proxy name the file itself."""

_LOADED: dict[Any, tuple[str, str, str]] = {
    tracked.SqlTraceInfo: (TRACES, "experiment", "experiment_id"),
    tracked.SqlEvaluationDatasetRecord: (ROWS, "dataset", "dataset_id"),
    tracked.SqlRun: (FILES, "experiment", "experiment_id"),
    tracked.SqlLoggedModel: (FILES, "experiment", "experiment_id"),
    registered.SqlModelVersion: (FILES, "model", "name"),
}
"""What is loaded -> what may hold rows of it, and by which column it belongs where."""


def _notice(what: str, kind: str, column: str) -> Callable[[Any, QueryContext], None]:
    def loaded(one: Any, context: QueryContext) -> None:
        seen = noticed.get()
        if seen is not None and context.session.info.get("permission") == READ:
            seen.add((what, kind, getattr(one, column)))

    return loaded


for _class, _what in _LOADED.items():
    sa.event.listen(_class, "load", _notice(*_what))


@sa.event.listens_for(SightedSession, "do_orm_execute")
def _columns(state: ORMExecuteState) -> Any:
    """Notice traces of which only columns are asked for: that loads none, and the columns say what was traced."""
    seen = noticed.get()
    if seen is None or not state.is_select or state.session.info.get("permission") != READ:
        return None
    asked = getattr(state.statement, "column_descriptions", ())
    table = tracked.SqlTraceInfo.__table__
    if not any(one["name"] == "experiment_id" and getattr(one["expr"], "table", None) is table for one in asked):
        return None
    found = state.invoke_statement().freeze()
    seen |= {(TRACES, "experiment", row["experiment_id"]) for row in found().mappings()}
    return found()


def read_of(connection: sa.Connection, path: str, seen: Iterable[tuple[str, str, Any]]) -> set[tuple[str, str]]:
    """Return of which projects a request has read what; files count only where the address answers with one."""
    files = GIVES_FILES.fullmatch(path) is not None
    found: set[tuple[str, str]] = set()
    for what, kind, key in seen:
        if files or what != FILES:
            # An address that answers with a file loads what the file is of.
            said = FILES if files else what
            found |= {(project_of(name), said) for name in _names(connection, kind, key)}
    return found


def _names(connection: sa.Connection, kind: str, key: Any) -> Iterable[str]:
    """Return the names of the experiments or the model that something belongs to."""
    if kind == "model":
        return [str(key)]
    experiments, links = tracked.SqlExperiment.__table__, tracked.SqlEntityAssociation.__table__
    keys = [key]
    if kind == "dataset":
        linked = (links.c.source_type == EntityAssociationType.EVALUATION_DATASET) & (links.c.source_id == key)
        query = sa.select(links.c.destination_id).where(linked)
        keys = [int(one) for one in connection.execute(query).scalars() if str(one).isdigit()]
    query = sa.select(experiments.c.name).where(experiments.c.experiment_id.in_(keys))
    return list(connection.execute(query).scalars())
