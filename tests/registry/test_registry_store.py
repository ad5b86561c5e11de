"""A registry write and its event are one: both are there, or neither."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from orrery.registry.database import store_uri
from orrery.registry.store import WRITES, TimelineRegistryStore, TimelineTrackingStore, acting_as
from orrery.registry.versions import set_alias
from orrery.timeline.event import Draft

both = pytest.mark.parametrize(
    "timeline", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)


@pytest.fixture
def store(timeline) -> TimelineRegistryStore:
    return TimelineRegistryStore(store_uri(timeline.engine.url.render_as_string(hide_password=False)))


def count(timeline, table: str) -> int:
    with timeline.reading() as connection:
        return connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar() or 0


def pushed(timeline, model: str) -> None:
    spec = {"environments": {"staging": {}, "production": {}}}
    timeline.append([Draft(kind="pushed", actor="nora", why="First.", model=model, data={"spec": spec})])


def test_no_write_of_mlflow_is_forgotten():
    source = inspect.getsource(SqlAlchemyStore)
    methods = re.split(r"\n    def ", source)[1:]
    writing = {m.split("(")[0] for m in methods if "ManagedSessionMaker(read_only=False)" in m}
    assert {name for name in writing if "webhook" not in name} == set(WRITES)


@both
def test_every_write_stands_on_the_timeline(store, timeline):
    token = acting_as.set("nora")
    store.create_registered_model("tides", tags=[RegisteredModelTag("unit", "m")])
    store.update_registered_model("tides", "Heights.")
    store.set_registered_model_tag("tides", RegisteredModelTag("a", "b"))
    store.delete_registered_model_tag("tides", "a")
    store.create_model_version("tides", "mlflow-artifacts:/1", tags=[ModelVersionTag("c", "d")])
    store.update_model_version("tides", "1", "Good.")
    store.transition_model_version_stage("tides", "1", "Staging", False)
    store.set_model_version_tag("tides", "1", ModelVersionTag("e", "f"))
    store.delete_model_version_tag("tides", "1", "e")
    store.set_registered_model_alias("tides", "champion", "1")
    store.delete_registered_model_alias("tides", "champion")
    store.delete_model_version("tides", "1")
    store.rename_registered_model("tides", "waves")
    acting_as.reset(token)
    store.delete_registered_model("waves")
    events = list(timeline.read(kinds=["registry"]))
    assert [event.data["operation"] for event in events if event.model == "tides"] + ["delete_registered_model"] == [
        event.data["operation"] for event in events if event.model == "tides" or event.actor != "nora"
    ]
    assert {event.data["operation"] for event in events} == set(WRITES)
    assert events[4].version == 1 and events[4].data["tags"] == {"c": "d"}
    assert events[4].why == "Registered version 1 of tides from mlflow-artifacts:/1."
    assert [event.actor for event in events] == ["nora"] * (len(events) - 1) + ["mlflow-client"]
    assert [event.model for event in events[-3:]] == ["tides", "waves", "waves"]


@both
def test_an_event_that_cannot_be_written_rolls_the_write_back(store, timeline):
    store.create_registered_model("tides")
    before = timeline.head()
    token = acting_as.set(" ")  # the timeline refuses an event without an actor
    with pytest.raises(MlflowException, match="needs an actor"):
        store.create_model_version("tides", "mlflow-artifacts:/1")
    with pytest.raises(MlflowException, match="needs an actor"):
        store.create_registered_model("waves")
    acting_as.reset(token)
    assert timeline.head() == before
    assert (count(timeline, "model_versions"), count(timeline, "registered_models")) == (0, 1)
    assert store.create_model_version("tides", "mlflow-artifacts:/1").version == 1


@both
def test_a_write_that_fails_leaves_no_event(store, timeline):
    store.create_registered_model("tides")
    before = timeline.head()
    with pytest.raises(MlflowException, match="already exists"):
        store.create_registered_model("tides")
    with pytest.raises(MlflowException, match="not found"):
        store.create_model_version("waves", "mlflow-artifacts:/1")
    with pytest.raises(MlflowException, match="not found"):
        store.delete_model_version("tides", "7")
    assert timeline.head() == before
    store.create_registered_model("waves")


@both
def test_forty_at_once_are_forty(store, timeline):
    store.create_registered_model("tides")
    failures: list[Exception] = []

    def create() -> None:
        try:
            store.create_model_version("tides", "mlflow-artifacts:/1")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    events = list(timeline.read("tides", kinds=["registry"]))
    assert sorted(event.version for event in events[1:]) == list(range(1, 41))
    assert count(timeline, "model_versions") == 40
    assert [event.seq for event in events] == list(range(1, 42))


CREATE = """
import sys
from orrery.registry.store import TimelineRegistryStore
store = TimelineRegistryStore(sys.argv[1])
for _ in range(10):
    store.create_model_version("tides", "mlflow-artifacts:/1")
"""


@pytest.mark.slow
def test_processes_share_the_database(store, timeline):
    store.create_registered_model("tides")
    uri = store_uri(str(timeline.engine.url))
    processes = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", CREATE, uri]) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert [event.version for event in timeline.read("tides")] == [None, *range(1, 41)]


@both
def test_the_schema_is_made_once_by_whoever_comes_first(timeline):
    uri = store_uri(timeline.engine.url.render_as_string(hide_password=False))
    timeline.append([Draft(kind="business", actor="nora", why="Before MLflow.")])
    TimelineTrackingStore(uri, "mlflow-artifacts:/")
    TimelineRegistryStore(uri)
    assert count(timeline, "alembic_version") == 1 and count(timeline, "orrery_schema") == 1
    assert timeline.head()[0] == 1


@both
def test_pointers_of_a_project_follow_its_environments(store, timeline):
    pushed(timeline, "tides")
    for name in ("tides", "free"):
        store.create_registered_model(name)
        store.create_model_version(name, "mlflow-artifacts:/1")
    for alias in ("champion", "Champion", "challenger", "staging", "production"):
        with pytest.raises(MlflowException, match="orrery promote"):
            store.set_registered_model_alias("tides", alias, "1")
        with pytest.raises(MlflowException, match="orrery promote"):
            store.delete_registered_model_alias("tides", alias)
        store.set_registered_model_alias("free", alias, "1")
    store.set_registered_model_alias("tides", "baseline", "1")
    with pytest.raises(MlflowException, match="the model of a project"):
        store.delete_registered_model("tides")
    with pytest.raises(MlflowException, match="the model of a project"):
        store.rename_registered_model("tides", "waves")
    store.rename_registered_model("free", "freer")

    draft = Draft(kind="promoted", actor="nora", why="Better.", model="tides", version=1, environment="production")
    timeline.append([draft], within=lambda connection, events: set_alias(connection, "tides", "champion", 1))
    assert store.get_model_version_by_alias("tides", "champion").version == 1
    with pytest.raises(MlflowException, match="it is in use"):
        store.delete_model_version("tides", "1")
    with timeline.writing() as connection:
        set_alias(connection, "tides", "champion", None)
        set_alias(connection, "tides", "champion", 99)  # no such version: no alias, and no fault
    with pytest.raises(MlflowException, match="not found"):
        store.get_model_version_by_alias("tides", "champion")
    store.delete_model_version("tides", "1")


def test_an_alias_goes_back_with_its_event(store, timeline):
    store.create_registered_model("tides")
    store.create_model_version("tides", "mlflow-artifacts:/1")

    def point_and_fail(connection, events):
        set_alias(connection, "tides", "champion", 1)
        raise RuntimeError("killed")

    draft = Draft(kind="promoted", actor="nora", why="Better.", model="tides", version=1)
    with pytest.raises(RuntimeError):
        timeline.append([draft], within=point_and_fail)
    assert store.get_registered_model("tides").aliases == {}


def test_aliases_wait_for_mlflow_without_its_tables_and_without_its_import(timeline):
    with timeline.writing() as connection:
        set_alias(connection, "tides", "champion", 1)
    code = "import sys; from orrery.registry import plugin, server, versions; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_replayed_time_reaches_the_registry(home):
    clock = home.home / "clock"
    clock.write_text("2013-06-08T05:00:00Z")
    store = TimelineRegistryStore(store_uri(home.database, clock))
    store.create_registered_model("tides")
    assert [str(event.recorded_at) for event in store.timeline.read("tides")] == ["2013-06-08 05:00:00+00:00"]
    assert Path(store.db_uri.removeprefix("sqlite:///")).name == "orrery.db"
