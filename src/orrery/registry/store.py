"""MLflow's stores on orrery's database: what happens to a registered model happens on the timeline, or not at all."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    TEMPORARILY_UNAVAILABLE,
    ErrorCode,
)
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as SqlAlchemyTrackingStore

from orrery.errors import OrreryError
from orrery.registry.database import engine_of, joining, managed_sessions, opened
from orrery.registry.sight import everything, refuse_place
from orrery.registry.versions import POINTERS, pointers_at, project_spec
from orrery.timeline import schema
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline

acting_as: ContextVar[str] = ContextVar("acting_as", default="mlflow-client")
"""Who is at work: the actor of the events that a registry write leaves."""

WRITES: dict[str, str] = {
    "create_registered_model": "Registered the model {name}.",
    "update_registered_model": "Described the model {name} anew.",
    "rename_registered_model": "Renamed the model {name} to {new_name}.",
    "delete_registered_model": "Deleted the registered model {name} and all its versions.",
    "set_registered_model_tag": "Set the tag {key} of the model {name}.",
    "delete_registered_model_tag": "Removed the tag {key} of the model {name}.",
    "create_model_version": "Registered version {version} of {name} from {source}.",
    "update_model_version": "Described version {version} of {name} anew.",
    "transition_model_version_stage": "Moved version {version} of {name} to the stage {stage}.",
    "delete_model_version": "Deleted version {version} of {name} in the registry.",
    "set_model_version_tag": "Set the tag {key} of version {version} of {name}.",
    "delete_model_version_tag": "Removed the tag {key} of version {version} of {name}.",
    "set_registered_model_alias": "Pointed the alias {alias} of {name} at version {version}.",
    "delete_registered_model_alias": "Removed the alias {alias} of {name}.",
}
"""Every operation of MLflow's registry that changes a model, and the sentence that its event gives as the reason."""


class TimelineTrackingStore(SqlAlchemyTrackingStore):  # type: ignore[misc]
    """Runs and experiments, in the same database as the timeline; MLflow makes one for ``orrery+...`` URIs."""

    def __init__(self, store_uri: str, artifact_uri: str) -> None:
        super().__init__(opened(store_uri)[0], artifact_uri)

    def _initialize_store_state(self) -> None:
        self.ManagedSessionMaker = managed_sessions(self.engine)
        with everything():  # what every store needs is made, whoever asks first
            super()._initialize_store_state()

    @classmethod
    def _get_or_create_engine(cls, db_uri: str) -> sa.Engine:
        return engine_of(db_uri)

    def create_experiment(self, name: str, artifact_location: str | None = None, tags: Any = None) -> Any:
        """Create an experiment, as MLflow does; who asks from outside does not choose where its files are."""
        refuse_place(artifact_location)
        return super().create_experiment(name, artifact_location, tags)


class TimelineRegistryStore(SqlAlchemyStore):  # type: ignore[misc]
    """A model registry whose every write leaves an event ``registry`` in the same transaction.

    MLflow makes one for URIs that begin with ``orrery+sqlite`` or ``orrery+postgresql``. An event that cannot be
    written rolls the write back. Aliases that stand for the environments of a project cannot be set from here: they
    follow what the timeline says.

    Parameters
    ----------
    store_uri : of :func:`orrery.registry.database.store_uri`.
    """

    def __init__(self, store_uri: str) -> None:
        url, clock = opened(store_uri)
        super().__init__(url)
        engine = self.engine.execution_options(orrery_reads=False)
        schema.upgrade(engine)
        self.timeline = Timeline(engine, clock)

    def _initialize_store_state(self) -> None:
        self.ManagedSessionMaker = managed_sessions(self.engine)
        with everything():  # what every store needs is made, whoever asks first
            super()._initialize_store_state()

    @classmethod
    def _get_or_create_engine(cls, db_uri: str) -> sa.Engine:
        return engine_of(db_uri)

    def add_version(
        self, connection: sa.Connection, name: str, source: str, run_id: str, tags: Mapping[str, str]
    ) -> int:
        """Add a version, and the model if it is new, within an open transaction that brings its own event.

        Returns
        -------
        The number of the version.
        """
        known = "SELECT 1 FROM registered_models WHERE name = :name AND workspace = 'default'"
        with joining(connection):
            if connection.execute(sa.text(known), {"name": name}).first() is None:
                SqlAlchemyStore.create_registered_model(self, name)
            version = SqlAlchemyStore.create_model_version(
                self, name, source, run_id, [ModelVersionTag(key, value) for key, value in tags.items()]
            )
        return int(version.version)


def _recorded(operation: str) -> Callable[..., Any]:
    """Return the store's method of this name, joined in one transaction with the event that tells of it."""
    plain: Callable[..., Any] = getattr(SqlAlchemyStore, operation)
    signature = inspect.signature(plain)

    @functools.wraps(plain)
    def method(self: TimelineRegistryStore, *args: Any, **kwargs: Any) -> Any:
        arguments = dict(signature.bind(self, *args, **kwargs).arguments)
        del arguments["self"]
        with _as_mlflow_error(), self.timeline.writing() as connection:
            _refuse_what_a_project_decides(connection, operation, arguments)
            with joining(connection):
                result = plain(self, *args, **kwargs)
            self.timeline.append(_drafts(operation, arguments, result), connection=connection)
        return result

    return method


for _operation in WRITES:
    setattr(TimelineRegistryStore, _operation, _recorded(_operation))


@contextlib.contextmanager
def _as_mlflow_error() -> Iterator[None]:
    """Say what went wrong in the way that MLflow's clients understand."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(INTERNAL_ERROR):
            raise
        what = "What this refers to is not there, or cannot be read. Nothing was changed."
        raise MlflowException(what, INVALID_PARAMETER_VALUE) from error
    except OrreryError as error:
        raise MlflowException(f"{error} Nothing was changed.", TEMPORARILY_UNAVAILABLE) from error
    except sa.exc.SQLAlchemyError as error:
        what = f"The timeline could not be written: {error}. Nothing was changed."
        raise MlflowException(what, TEMPORARILY_UNAVAILABLE) from error


def _drafts(operation: str, arguments: Mapping[str, Any], result: Any) -> list[Draft]:
    data = {name: value for name, value in _plain(arguments).items() if value is not None}
    version = int(data["version"]) if "version" in data else None
    if isinstance(result, ModelVersion):
        version = int(result.version)
    why = WRITES[operation].format(**{**data, "version": version})
    names = [arguments["name"]]
    if operation == "rename_registered_model":
        names.append(arguments["new_name"])
    return [
        Draft(
            kind="registry",
            actor=acting_as.get()[:256],
            why=why,
            model=name[:64],  # longer names are MLflow's own, never a project's; the data has the whole
            version=version,
            data={"operation": operation, **data},
        )
        for name in names
    ]


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Write an operation's arguments as JSON can say them: tags as names and values, numbers as numbers."""
    plain: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "tag":
            plain["key"], plain["value"] = value.key, value.value
        elif name == "tags":
            plain["tags"] = {tag.key: tag.value for tag in value or ()}
        elif name == "version":
            plain["version"] = int(value)
        elif name == "archive_existing_versions" or value is None or isinstance(value, str):
            plain[name] = value
        else:
            plain[name] = str(value)
    return plain


def _refuse_what_a_project_decides(connection: sa.Connection, operation: str, arguments: Mapping[str, Any]) -> None:
    name = arguments["name"]
    spec = project_spec(connection, name)
    if spec is None:
        return
    pointers = {*POINTERS, *spec.get("environments", {})}
    if operation in ("rename_registered_model", "delete_registered_model"):
        what = f"{name} is the model of a project: its name and its version numbers stay."
        todo = f"Use `orrery retire {name}` or `orrery delete {name}` with a version."
    elif operation.endswith("_registered_model_alias") and arguments["alias"].lower() in pointers:
        what = f"The alias {arguments['alias']} of {name} follows its environments."
        todo = f'Use `orrery promote {name} VERSION --why "..."`.'
    elif operation == "delete_model_version" and (
        held := pointers_at(connection, name, arguments["version"]) & pointers
    ):
        what = f"Version {arguments['version']} of {name} is {', '.join(sorted(held))}: it is in use."
        todo = f"Promote another version first, or use `orrery retire {name}`."
    else:
        return
    raise MlflowException(f"{what} Nothing was changed. {todo}", PERMISSION_DENIED)
