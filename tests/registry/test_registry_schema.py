"""The tables of an older MLflow are brought to the installed one at the start, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import command
from mlflow.store.db import utils as mlflow_db
from mlflow.store.db.base_sql_model import Base
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

from orrery.errors import Damaged, OrreryError
from orrery.registry import schema
from orrery.registry.database import store_uri
from orrery.registry.store import TimelineRegistryStore, TimelineTrackingStore
from orrery.settings import Settings
from orrery.timeline.store import Timeline, connect

OLD = "3500859a5d39"  # of MLflow 2.3: aliases, and nothing of what came since
both = pytest.mark.parametrize(
    "timeline", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)


@pytest.fixture
def url(timeline: Timeline) -> str:
    """A database with the tables of an old MLflow, and what its clients wrote."""
    url = timeline.engine.url.render_as_string(hide_password=False)
    plain = sa.create_engine(timeline.engine.url)  # as MLflow itself opens it
    InitialBase.metadata.create_all(plain)
    config = mlflow_db._get_alembic_config(url)
    with plain.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLD)
    plain.dispose()
    engine = connect(url)
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (0, 'Default', 'active')",
            "INSERT INTO runs (run_uuid, name, experiment_id, user_id, lifecycle_stage, status, start_time, "
            "artifact_uri) VALUES ('r1', 'old', 0, 'nora', 'active', 'FINISHED', 1, 'mlflow-artifacts:/0/r1')",
            "INSERT INTO params (key, value, run_uuid) VALUES ('depth', '3', 'r1')",
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
            "VALUES ('rmse', 0.5, 1, 'r1', 0, false)",
            "INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan) "
            "VALUES ('rmse', 0.5, 1, 'r1', 0, false)",
            "INSERT INTO registered_models (name, creation_time, last_updated_time) VALUES ('tides', 1, 1)",
            "INSERT INTO model_versions (name, version, creation_time, last_updated_time, source, current_stage, "
            "status) VALUES ('tides', 1, 1, 1, 'mlflow-artifacts:/0/r1', 'None', 'READY')",
            "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('tides', 'champion', 1)",
        ):
            connection.execute(sa.text(statement))
        assert schema.revision(connection) == OLD
    engine.dispose()
    return url


def content(url: str) -> dict[str, list[tuple[object, ...]]]:
    engine = connect(url)
    with engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        rows = {name: [tuple(row) for row in connection.execute(sa.text(f"SELECT * FROM {name}"))] for name in tables}
    engine.dispose()
    return rows


def test_the_newest_revision_is_read_as_mlflow_says_it() -> None:
    assert schema.newest() == mlflow_db._get_latest_schema_revision()


def test_looking_does_not_import_mlflow(home: Settings) -> None:
    code = f"import sys; from orrery.registry import schema; schema.upgrade({home.database!r}); schema.newest(); "
    code += "assert not {'mlflow', 'alembic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@both
def test_an_older_registry_is_upgraded_with_all_that_is_in_it(url: str) -> None:
    said: list[str] = []
    schema.upgrade(url, said.append)
    assert len(said) == 1 and OLD in said[0] and schema.newest() in said[0]
    runs, registry = TimelineTrackingStore(store_uri(url), "file:///tmp"), TimelineRegistryStore(store_uri(url))
    run = runs.get_run("r1")
    assert (run.data.params, run.data.metrics) == ({"depth": "3"}, {"rmse": 0.5})
    assert registry.get_model_version_by_alias("tides", "champion").version == 1
    registry.create_registered_model("waves")
    assert content(url).keys() >= Base.metadata.tables.keys()
    schema.upgrade(url, said.append)
    assert len(said) == 1  # nothing to do


@both
def test_whoever_opens_the_registry_finds_it_upgraded(url: str) -> None:
    """Also without ``orrery up``; the control is MLflow's own store, which refuses."""
    engine = connect(url)
    with pytest.raises(Exception, match="out-of-date database schema"):
        mlflow_db._verify_schema(engine)
    assert TimelineRegistryStore(store_uri(url)).get_registered_model("tides").name == "tides"
    mlflow_db._verify_schema(engine)
    engine.dispose()


@both
def test_a_migration_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(url)
    migrations = 0

    def full(connection: sa.Connection, cursor: object, statement: str, *rest: object) -> None:
        nonlocal migrations
        migrations += statement.startswith("UPDATE alembic_version")
        if migrations == 20:
            raise OSError("no space left on device")

    sa.event.listen(sa.Engine, "before_cursor_execute", full)
    try:
        with pytest.raises(OrreryError, match=r"no space left on device\. They are as they were"):
            schema.upgrade(url)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", full)
    assert migrations == 20 and content(url) == before
    schema.upgrade(url)
    assert content(url)["params"] and content(url) != before


@both
def test_the_tables_of_a_newer_mlflow_are_left_alone(url: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'ffffffffffff'"))
    engine.dispose()
    before = content(url)
    with pytest.raises(Damaged, match=r"written by a newer MLflow \(revision ffffffffffff"):
        schema.upgrade(url)
    assert content(url) == before


@pytest.fixture(autouse=True)
def own_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow's and our engines are kept by URL for the life of a process."""
    engines: dict[str, sa.Engine] = {}
    monkeypatch.setattr("orrery.registry.database._engines", engines)
    yield
    for engine in engines.values():
        engine.dispose()
