"""A training that turns on the platform: within walls it gets nowhere, without them it would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from acceptance.support import PIPELINE, fresh_settings, wait
from actions.worked import Worked, line_of
from orrery.settings import SETTINGS, Settings
from orrery.timeline.event import Draft
from orrery.web.versionpage import version_page
from orrery.workers.walls import NAMESPACES

pytestmark = pytest.mark.walls
ATTACK = """
import glob, json, os, socket, subprocess, urllib.request

def _attack(home):
    found = {}
    def tries(name, what):
        try:
            found[name] = what()
        except Exception as error:
            found[name] = type(error).__name__
    tries("key", lambda: len(open(f"{home}/key").read()) > 0)
    tries("database", lambda: len(open(f"{home}/orrery.db", "rb").read(9)))
    tries("checkouts", lambda: sorted(os.listdir(f"{home}/checkouts")))
    tries("lake", lambda: len(os.listdir(f"{home}/lake")) > 0)
    tries("write", lambda: open(f"{home}/mark", "w").write("x"))
    tries("environment", lambda: open(glob.glob(f"{home}/environments/*/bin")[0] + "/mark", "w").write("x"))
    tries("control", lambda: urllib.request.urlopen("CONTROL/api/models", timeout=10).status)
    tries("variables", lambda: sorted(name for name in os.environ if name.startswith("ORRERY") and "STEP" not in name))
    tries("processes", lambda: len([pid for pid in os.listdir("/proc") if pid.isdigit()]) > 8)
    return json.dumps(found)
"""
TRACKS = """
def _tracked():
    import mlflow
    with mlflow.start_run():
        mlflow.log_metric("height", 4.5)
        mlflow.log_text("said within", "note.txt")
"""


def attacking(settings: Settings, more: str = "raise ValueError('FOUND ' + _attack({home!r}))") -> str:
    text = (ATTACK + PIPELINE).replace("CONTROL", settings.control_url)
    return text.replace("    x = np", f"    {more.format(home=str(settings.home))}\n    x = np")


@pytest.fixture
def controlled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worked]]:
    """Make an orrery with a worker in the test and a control plane that runs beside it."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    ending: list[Callable[[], object]] = []

    def made(**more: Any) -> Worked:
        settings = replace(fresh_settings(tmp_path / "home"), **more)
        worked = Worked(settings, tmp_path)
        ending.append(worked.close)
        if settings.walls != "off" and worked.worker.desk.contained() != NAMESPACES:
            pytest.skip(f"not run: {worked.worker.desk.contained()}")
        env = {**os.environ, **settings.environment()}
        control = subprocess.Popen([sys.executable, "-m", "orrery.web"], env=env)
        ending.extend([control.wait, control.terminate])

        def answers() -> bool:
            try:
                return httpx.get(f"{settings.control_url}/api/health", timeout=2).is_success
            except httpx.HTTPError:
                return False

        wait(answers)
        return worked

    yield made
    while ending:
        ending.pop()()


def found(worked: Worked) -> dict[str, Any]:
    (failed,) = worked.work("failed", "trained")
    assert "FOUND {" in failed.data.get("error", ""), failed
    told: dict[str, Any] = json.loads(failed.data["error"].partition("FOUND ")[2].partition("}")[0] + "}")
    return told


def test_within_walls_a_training_reaches_its_own_and_mlflow(controlled: Callable[..., Worked]) -> None:
    worked = controlled()
    settings = worked.orrery.settings
    worked.push("other")  # whose checkout is there to be read
    worked.worker.desk.checkout("other", worked.source.tip("other") or "")
    worked.push(pipeline=attacking(settings))
    told = found(worked)
    assert told.pop("write") in (1, "FileNotFoundError", "OSError")  # not where anybody else would find it
    assert told == {
        "key": "FileNotFoundError",
        "database": "FileNotFoundError",
        "checkouts": ["tides"],
        "lake": "FileNotFoundError",
        "environment": "OSError",
        "control": "HTTPError",
        "variables": [],
        "processes": False,
    }
    assert not (settings.home / "mark").exists()
    tracks = attacking(settings, "_tracked()").replace("def _attack", f"{TRACKS}\ndef _attack")
    worked.push(pipeline=tracks)
    trained = line_of([one for one in worked.work("trained") if one.kind == "trained"])
    tested, built = (list(worked.orrery.timeline.read("tides", kinds=[kind]))[-1].data for kind in ("tested", "built"))
    assert trained["contained"] == tested["contained"] == NAMESPACES
    assert built["contained"] == f"{NAMESPACES}, nothing was built"
    page = version_page(worked.orrery, "tides", 1)
    assert (page.contained, page.tests_contained) == (NAMESPACES, NAMESPACES)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"{settings.control_url}/mlflow")
    (experiment,) = [one for one in client.search_experiments() if one.name == "tides"]
    runs = [one for one in client.search_runs([experiment.experiment_id]) if "height" in one.data.metrics]
    assert {run.data.metrics["height"] for run in runs} == {4.5}
    assert [one.path for one in client.list_artifacts(runs[0].info.run_id)] == ["note.txt"]


def test_without_walls_the_same_training_reaches_everything(controlled: Callable[..., Worked]) -> None:
    worked = controlled(walls="off")
    worked.push("other")
    worked.worker.desk.checkout("other", worked.source.tip("other") or "")
    settings = worked.orrery.settings
    (settings.home / "key").write_text("of the home")
    worked.push(pipeline=attacking(settings))
    told = found(worked)
    assert told["key"] is True and told["database"] == 9 and told["control"] == 200 and told["processes"] is True
    assert (
        told["checkouts"] == ["other", "tides"] and told["lake"] is True and told["write"] == told["environment"] == 1
    )
    tested = list(worked.orrery.timeline.read("tides", kinds=["tested"]))[-1].data
    assert tested["contained"] == "limits only (ORRERY_WALLS is off)"


def test_a_training_leaves_no_way_out_for_us_to_follow(home: Settings, tmp_path: Path) -> None:
    worked = Worked(home, tmp_path)
    try:
        (home.home / "key").write_text("of the home")
        worked.push(pipeline=attacking(home, "os.symlink('{home}/key', 'holdout-of-somebody.parquet')"))
        (failed,) = worked.work("failed", "trained")
        assert "left holdout-of-somebody.parquet, which is neither a file nor a folder" in failed.data["error"]
    finally:
        worked.close()


def test_other_machines_are_there_where_they_were_declared(controlled: Callable[..., Worked]) -> None:
    worked = controlled()
    control = worked.orrery.settings.control_url
    asks = f"""
import os, socket, urllib.error, urllib.request, pytest
def test_it():
    assert "HTTPS_PROXY" in os.environ
    with pytest.raises(OSError):
        urllib.request.urlopen("{control}/api/models", timeout=10)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen("http://[::ffff:127.0.0.1]:{worked.orrery.settings.port}/api/models", timeout=10)
    assert refused.value.code == 403
"""
    worked.push(tests=asks)
    (failed,) = worked.work("failed", "tested")
    assert failed.kind == "failed"
    trains = attacking(worked.orrery.settings, "_tracked()").replace("def _attack", f"{TRACKS}\ndef _attack")
    declared = '[resources]\nnetwork = ["tests", "training"]\n'
    worked.push(tests=asks, pipeline=trains, more=declared)
    tested, trained = (line_of(worked.work(kind)) for kind in ("tested", "trained"))
    said = f"{NAMESPACES}, with other machines by a proxy"
    assert tested["contained"] == trained["contained"] == said


def test_where_walls_are_required_and_cannot_be_nothing_runs(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orrery.workers.walls._refused", lambda: "the kernel says no")
    monkeypatch.setattr("orrery.actions.worker.ATTEMPTS", 1)
    worked = Worked(replace(home, walls="required"), tmp_path)
    mark = tmp_path / "ran"
    try:
        worked.push(tests=f"open({str(mark)!r}, 'w')\ndef test_it(): pass\n")
        (failed,) = worked.work("failed", "tested")
        assert "must run within walls, and cannot: the kernel says no" in failed.data["error"] and not mark.exists()
    finally:
        worked.close()


def test_a_version_of_before_says_nothing(home: Settings, tmp_path: Path) -> None:
    worked = Worked(home, tmp_path)
    try:
        worked.push()
        commit = next(iter(worked.orrery.model("tides").commits))
        data = {"run": "r", "commit": commit, "change": "redesign", "data": {}, "artifact": "a", "metrics": {}}
        draft = Draft(kind="trained", actor="a", why="w", model="tides", version=1, data={**data, "parent": None})
        worked.orrery.append([draft])
        assert version_page(worked.orrery, "tides", 1).contained == ""
    finally:
        worked.close()
