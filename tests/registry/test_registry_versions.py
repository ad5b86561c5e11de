"""A training becomes a version once, wherever the process is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from orrery.errors import NotFound, NotUnderstood
from orrery.registry.versions import Registry, artifact_path, delete_artifact
from orrery.timeline.event import Draft

RUN = {"name": "first", "params": {"depth": 6}, "metrics": {"brier": 0.2}, "tags": {"team": "sea"}, "commit": "c" * 40}


def trained(version: int) -> Draft:
    return Draft(kind="trained", actor="orrery/training", why="A push.", data={"number": version})


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "deep" / "model.bin").write_bytes(b"\0" * 1000)
    return folder


@pytest.mark.parametrize(
    "timeline", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)
def test_a_training_becomes_a_run_a_version_and_an_event(home, timeline, artifact):
    import dataclasses

    settings = dataclasses.replace(home, database=timeline.engine.url.render_as_string(hide_password=False))
    registry = Registry(settings, timeline)
    assert registry.register("tides", artifact, run=RUN, draft_for=trained, key="a") == 1
    assert registry.register("tides", artifact, run=RUN, draft_for=trained, key="a") == 1
    assert registry.register("tides", artifact, run={}, draft_for=trained, key="b") == 2
    events = list(timeline.read("tides"))
    assert [(event.id, event.kind, event.version, event.data["number"]) for event in events] == [
        ("a", "trained", 1, 1),
        ("b", "trained", 2, 2),
    ]
    run = registry._runs.get_run(events[0].data["tracking_run"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params == {"depth": "6"} and run.data.metrics == {"brier": 0.2}
    assert run.data.tags["team"] == "sea" and run.data.tags["mlflow.source.git.commit"] == "c" * 40
    assert registry._runs.get_experiment_by_name("tides") is not None
    path = artifact_path(settings, timeline, "tides", 1)
    assert (path / "deep" / "model.bin").read_bytes() == b"\0" * 1000
    assert path.is_relative_to(settings.home / "artifacts")
    with pytest.raises(NotFound, match="no version 3"):
        artifact_path(settings, timeline, "tides", 3)


def test_files_go_and_the_record_stays(home, timeline, artifact):
    registry = Registry(home, timeline)
    registry.register("tides", artifact, run=RUN, draft_for=trained, key="a")
    path = artifact_path(home, timeline, "tides", 1)
    delete_artifact(home, timeline, "tides", 1)
    delete_artifact(home, timeline, "tides", 1)
    assert not path.exists() and list(path.parent.iterdir()) == []
    with pytest.raises(NotFound, match="are gone"):
        artifact_path(home, timeline, "tides", 1)
    assert [event.version for event in timeline.read("tides")] == [1]
    assert registry.register("tides", artifact, run=RUN, draft_for=trained, key="a") == 1
    assert registry.register("tides", artifact, run=RUN, draft_for=trained, key="b") == 2


def test_what_leads_outside_is_not_kept(home, timeline, artifact):
    (artifact / "link").symlink_to("/etc/passwd")
    with pytest.raises(NotUnderstood, match="symbolic link"):
        Registry(home, timeline).register("tides", artifact, run={}, draft_for=trained, key="a")
    assert timeline.head()[0] == 0


def test_a_refused_event_takes_the_version_back(home, timeline, artifact):
    registry = Registry(home, timeline)
    nameless = Draft(kind="trained", actor="", why="A push.")
    with pytest.raises(NotUnderstood, match="needs an actor"):
        registry.register("tides", artifact, run={}, draft_for=lambda version: nameless, key="a")
    with timeline.reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM model_versions")).scalar() == 0
    assert registry.register("tides", artifact, run={}, draft_for=trained, key="a") == 1


KILLED = """
import os, sys
from pathlib import Path
import sqlalchemy as sa
from orrery import settings
from orrery.registry.versions import Registry
from orrery.timeline import schema
from orrery.timeline.clock import SystemClock
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline, connect
import mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store

home, artifact = Path(sys.argv[1]), Path(sys.argv[2])

def attempt(folder, steps):
    "Register in a child that kills itself at one of its steps; say whether it lived."
    child = os.fork()
    if child == 0:
        left = [steps]
        def step(event, args):
            # a step is a statement that reaches the database, or a change in the file system
            if event in ("sqlite3.step", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "shutil.copyfile"):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), 9)
        def statement(*arguments):
            step("sqlite3.step", None)
        for name in ("before_cursor_execute", "commit", "begin", "savepoint", "release_savepoint"):
            sa.event.listen(sa.Engine, name, statement)
        sys.addaudithook(step)
        where = settings.load(home=folder)
        engine = connect(where.database)
        schema.upgrade(engine)
        draft = Draft(kind="trained", actor="orrery/training", why="A push.")
        run = {"params": {"depth": 6}, "metrics": {"brier": 0.2}}
        got = Registry(where, Timeline(engine, SystemClock())).register(
            "tides", artifact, run=run, draft_for=lambda version: draft, key="a")
        os._exit(0 if got == 1 else 7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

import shutil
template = home / "template"
template.mkdir()
where = settings.load(home=template)
engine = connect(where.database); schema.upgrade(engine)
from orrery.registry.store import TimelineRegistryStore
from orrery.registry.database import store_uri
TimelineRegistryStore(store_uri(where.database)); engine.dispose()
import orrery.registry.database as database
for opened in database._engines.values(): opened.dispose()
database._engines.clear()
done, step = 0, 1
while True:
    folder = home / f"killed-{step}"
    shutil.copytree(template, folder)
    died = attempt(folder, step)
    assert died in (0, -9), died
    again = attempt(folder, 1_000_000)
    assert again == 0, (step, again)
    done += 1
    if died == 0:
        break
    step += int(sys.argv[3])
print(done)
"""


def check_once(folder: Path) -> None:
    """Look at the database and the files with nothing of orrery's code."""
    engine = sa.create_engine(f"sqlite:///{folder / 'orrery.db'}")
    with engine.connect() as connection:

        def rows(query: str) -> list[tuple[object, ...]]:
            return [tuple(row) for row in connection.execute(sa.text(query))]

        assert rows("SELECT version FROM model_versions") == [(1,)]
        assert rows("SELECT id, version FROM events") == [("a", 1)]
        assert rows("SELECT count(*), max(status) FROM runs") == [(1, "FINISHED")]
        assert rows("SELECT key, value FROM params") == [("depth", "6")]
        assert rows("SELECT key, value FROM metrics") == [("brier", 0.2)]
        assert rows("SELECT name FROM experiments WHERE name = 'tides'") == [("tides",)]
        (data,) = rows("SELECT data FROM events")[0]
    engine.dispose()
    made = folder / json.loads(str(data))["artifact"]
    assert (made / "deep" / "model.bin").stat().st_size == 1000
    assert sorted(path.name for path in made.parent.parent.iterdir()) == [".sealed", "artifacts"]


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("stride", [7])
def test_killed_at_any_step_it_is_made_once(tmp_path, artifact, stride):
    home = tmp_path / "homes"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORRERY_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(home), str(artifact), str(stride)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) > 10
    for folder in home.glob("killed-*"):
        check_once(folder)
