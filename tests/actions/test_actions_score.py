"""A dataset is scored as requests are answered, whole or not at all, through any kill."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery import spec as specs
from orrery.actions import score as module
from orrery.actions.batches import answers
from orrery.actions.desk import Desk
from orrery.actions.on_ray import Answering, Refused
from orrery.actions.promises import Promises, masked, plain
from orrery.actions.score import Job, finished, parts, plan, score
from orrery.app import Orrery
from orrery.data.lake import Lake
from orrery.data.parts import Parts
from orrery.data.predictions import PredictionLog, logged, matured
from orrery.errors import Conflict, ContractBroken, NotAllowed, NotFound, NotUnderstood, OrreryError, ProjectFailed
from orrery.pipeline.artifact import write_score
from orrery.pipeline.manifest import Manifest
from orrery.serving.assignment import AssignmentFile
from orrery.serving.contract import Checker
from orrery.serving.contract import masked as masked_values
from orrery.settings import SETTINGS, load
from orrery.stats.anomaly import AnomalyScore
from orrery.timeline.event import Draft
from orrery.timeline.verify import verify
from orrery.web.assignment import assignment_of
from training.conftest import Trainer

START = datetime(2024, 1, 1, tzinfo=UTC)
PIPELINE = """
import time
import numpy as np

def features(rows):
    return rows.select("a", "b", "city")

def model(features, y):
    return Model()

class Model:
    def predict_proba(self, given):
        if given.height > 100:
            time.sleep(0.05)  # so that a run can be killed in the middle
        if (given["a"] == 999.0).any():
            raise ValueError("nine hundred and ninety-nine")
        a, b = given["a"].fill_null(0.3).to_numpy(), given["b"].fill_null(-0.2).to_numpy()
        at = a - 2 * b + (given["city"] == "Rome").fill_null(False).to_numpy()
        p = 1 / (1 + np.exp(-at))
        return np.column_stack([1 - p, p])
"""
SPEC: dict[str, Any] = {
    "model": {"name": "toy", "task": "binary", "target": "y", "time": "at", "entity": "who", "label_delay": "1d"},
    "data": {"rows": "rows"},
}
CITIES = ["Paris", "Rome", "Oslo"]


def rows(count: int, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "who": [f"w{seed}-{number}" for number in range(count)],
            "at": [START + timedelta(hours=2 * number) for number in range(count)],
            "a": random.normal(size=count),
            "b": random.normal(size=count),
            "city": random.choice(CITIES, count),
            "y": random.random(count) < 0.5,
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )


def odd(count: int) -> pl.DataFrame:
    """Rows of which some break the contract."""
    place = pl.int_range(count)
    return rows(count, 5).with_columns(
        a=pl.when(place % 7 == 3).then(1e9).when(place % 11 == 5).then(None).otherwise("a"),
        city=pl.when(place % 5 == 2).then(pl.lit("Atlantis")).otherwise("city"),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two versions of a model, the first of them champion; written once and copied for each test."""
    trainer = Trainer(tmp_path_factory.mktemp("trained"))
    home = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        orrery = Orrery(load(home))
    artifact = trainer.version(PIPELINE, rows(200), model=SPEC["model"])
    shutil.copytree(artifact, home / "artifact-1")
    orrery.add_data("rows", rows(200), why="To learn from.", actor="ann")
    orrery.lake.append("fresh", rows(3000, 1).drop("y"))
    orrery.lake.append("odd", odd(60).drop("y"))
    about = {"model": "toy", "actor": "t", "why": "because"}
    commit = {"commit": "abc", "message": "m", "author": "ann", "spec": specs.to_dict(specs.from_dict(SPEC))}
    facts = {"commit": "abc", "change": "redesign", "data": {"rows": 1}, "classes": [False, True]}
    drafts = [
        Draft(kind="pushed", data=commit, **about),
        Draft(kind="built", data={"commit": "abc", "python": sys.executable}, **about),
        Draft(kind="trained", version=1, data={**facts, "run": "1", "artifact": "artifact-1"}, **about),
        Draft(kind="trained", version=2, data={**facts, "run": "2", "artifact": "artifact-1"}, **about),
        Draft(kind="promoted", version=1, environment="production", data={"change": "redesign"}, **about),
    ]
    orrery.timeline.append(drafts)
    orrery.timeline.engine.dispose()
    return home


@pytest.fixture
def desk(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(written, tmp_path / "home")
    desk = Desk(Orrery(load(tmp_path / "home")))
    yield desk
    assert verify(event.to_json() for event in desk.orrery.timeline.read()).holds
    desk.orrery.timeline.engine.dispose()


def job(desk: Desk, data: str = "fresh", out: str = "scores", which: str = "", **more: Any) -> Job:
    return plan(desk, "toy", which, data, out, **{"environment": "production", "log": True, **more})


def done(desk: Desk, one: Job, **more: Any) -> module.Scored:
    return score(desk, one, actor="mara", **{"rows_per_batch": 700, "processes": 1, **more})


def log_of(desk: Desk) -> pl.DataFrame:
    return PredictionLog(desk.orrery.lake, "toy").rows(None, None, None).collect()


def scored(desk: Desk) -> list[Any]:
    return list(desk.orrery.timeline.read("toy", kinds=("scored",)))


def command(desk: Desk, *words: str) -> list[str]:
    return [sys.executable, "-m", "orrery.cli.main", *words, "--home", str(desk.settings.home), "--as", "mara"]


# --- the same answers as the inference server ----------------------------------------------------------------------


def test_what_is_logged_of_a_dataset_has_a_score_as_requests_have(desk: Desk) -> None:
    assert desk.orrery.anomaly_scores("toy", 1) is None, "it was trained on too few rows"
    done(desk, job(desk, "odd"))
    assert log_of(desk)["_anomaly"].null_count() == 60
    again = Desk(Orrery(desk.settings))
    known = rows(2000, 8)
    columns = {name: known[name].to_numpy() for name in ("a", "b")} | {"city": known["city"].to_numpy().astype(object)}
    score = AnomalyScore.fit({n: v[:1000] for n, v in columns.items()}, {n: v[1000:] for n, v in columns.items()})
    assert score is not None
    write_score(desk.settings.home / "artifact-1", score)
    done(again, job(again, "odd", "more", which="2", environment="development"))
    log = log_of(again).filter(pl.col("_version") == 2).sort(pl.col("_id").str.extract("#(.*)", 1).cast(pl.Int64))
    strange = odd(60).select(
        (pl.col("a") == 1e9).fill_null(False) | pl.col("a").is_null() | (pl.col("city") == "Atlantis")
    )
    assert ((log["_anomaly"] >= 3 - 1e-9) >= strange.to_series()).all() and (log["_anomaly"] < 2).sum() > 30


def test_the_inference_server_answers_the_same(desk: Desk) -> None:
    """With values that break the contract, values that are missing, and more than one row at once."""
    settings = desk.settings
    frame = desk.orrery.lake.read("odd").polars()
    folder = settings.folder("serving")
    AssignmentFile(folder / "assignment.json").save(assignment_of(desk.orrery))
    env = {**os.environ, **settings.environment(), "ORRERY_PORT": "9", "ORRERY_SERVING_PORT": "18719"}
    with (
        (settings.home / "log").open("wb") as log,
        subprocess.Popen([sys.executable, "-m", "orrery.serving"], env=env, stderr=log, stdout=log) as server,
        httpx.Client(base_url="http://127.0.0.1:18719", timeout=30) as http,
    ):
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    if http.get("/v2/health/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    assert server.poll() is None
                time.sleep(0.1)
            columns = {name: plain(frame[name]) for name in frame.columns}
            records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            answer = http.post("/models/toy/predict", json=records)
            assert answer.status_code == 200, answer.text
        finally:
            server.terminate()
    online = answer.json()
    found = done(desk, job(desk, "odd"), rows_per_batch=13, processes=2)
    out = desk.orrery.lake.read("scores").polars()
    assert out["probability"].to_list() == online["probability"]
    assert out["prediction"].to_list() == online["prediction"]
    broken = online["parameters"]["broken"]
    assert [names.split(", ") if names else [] for names in out["broken"]] == broken and any(broken)
    assert found.broken == sum(map(bool, broken)) == scored(desk)[0].data["broken"]
    # And it matters: without the mask, other numbers would come out.
    unmasked = frame.with_columns(pl.lit(1e9).alias("a"))
    assert masked(unmasked, [["a"]] * frame.height)["a"].null_count() == frame.height


# --- what a run leaves ---------------------------------------------------------------------------------------------


def test_a_run_and_what_it_leaves(desk: Desk) -> None:
    seen: list[int] = []
    before = logged(desk.orrery.lake, "toy", "production", None, datetime(2100, 1, 1, tzinfo=UTC))
    found = done(desk, job(desk), why="For the letter", went=seen.append)
    assert (found.rows, found.resumed, found.already, found.version.version) == (3000, 0, False, 1)
    assert seen == [0, 700, 1400, 2100, 2800, 3000]
    out, given = desk.orrery.lake.read("scores").polars(), desk.orrery.lake.read("fresh").polars()
    own = ["probability", "prediction", "broken", "model_version", "dataset_version", "row"]
    assert out.columns == ["who", "at", *own]
    assert out["who"].equals(given["who"]) and out["row"].to_list() == list(range(3000))
    said = 1 / (1 + np.exp(-(given["a"] - 2 * given["b"] + (given["city"] == "Rome")).to_numpy()))
    assert np.allclose(out["probability"], said)
    [event] = scored(desk)
    wanted = {"dataset": "fresh", "dataset_version": 1, "out": "scores", "out_version": 1, "rows": 3000}
    assert event.data.items() >= wanted.items() and (event.actor, event.version) == ("mara", 1)
    assert event.why == "3000 rows of fresh@v1 scored by version 1 of toy: For the letter, into scores@v1."
    assert desk.orrery.states.data().datasets["scores"].rows == 3000
    log = log_of(desk)
    assert log.height == 3000 and set(log["_role"]) == {"batch"} and log["_id"].n_unique() == 3000
    assert log.sort("_id")["_entity"].to_list() == sorted(given["who"], key=lambda who: f"fresh@v1#{who[3:]}")
    assert not parts(desk, job(desk)).folder.exists()
    # Who looks at champions and challengers sees none of it.
    until = datetime(2100, 1, 1, tzinfo=UTC)
    after = logged(desk.orrery.lake, "toy", "production", None, until)
    assert before.height == after.height == 0
    assert logged(desk.orrery.lake, "toy", "production", None, until, role=None).height == 0
    labels = pl.DataFrame({"entity": given["who"], "label": [True] * 3000, "at": [datetime.now(UTC)] * 3000})
    desk.orrery.add_labels("toy", labels)
    assert matured(desk.orrery.lake, "toy", "production", None, until, timedelta(0)).height == 0
    assert matured(desk.orrery.lake, "toy", "production", None, until, timedelta(0), roles=["batch"]).height == 3000


def test_how_the_work_is_divided_changes_nothing(desk: Desk) -> None:
    one = done(desk, job(desk, out="one"), rows_per_batch=3000)
    two = done(desk, job(desk, out="two"), rows_per_batch=411, processes=2)
    assert one.version.digest == two.version.digest
    assert log_of(desk).height == 3000  # the same predictions are logged once


def test_the_same_order_again_does_nothing(desk: Desk) -> None:
    done(desk, job(desk))
    again = done(desk, job(desk))
    assert again.already and again.version.version == 1
    desk.orrery.lake.append("fresh", rows(10, 3).drop("y"))
    more = done(desk, job(desk))
    assert (more.rows, more.version.version, more.version.rows) == (3010, 2, 6010)
    assert len(scored(desk)) == 2


def test_an_end_between_the_result_and_its_event(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(desk)

    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_announce", killed)
        with pytest.raises(KeyboardInterrupt):
            done(desk, one)
    assert scored(desk) == [] and finished(desk, one) is not None
    assert len(scored(desk)) == 1 and desk.orrery.states.data().datasets["scores"].rows == 3000
    assert done(desk, one).already and len(scored(desk)) == 1 and log_of(desk).height == 3000


# --- killed -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(desk: Desk) -> None:
    """The real command, killed with SIGKILL again and again; without the last run nothing of it is to be seen."""
    order = command(desk, "score", "toy@1", "--data", "fresh", "--out", "scores", "--rows-per-batch", "150", "--json")
    reached, kills = 0, 0
    while reached < 1500:
        process = subprocess.Popen(order, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until = time.monotonic() + 60
        kept = parts(desk, job(desk))
        while kept.done < reached + 450 and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert kept.done > reached
        reached, kills = kept.done, kills + 1
    assert kills >= 2 and 0 < reached < 3000
    assert desk.orrery.lake.names() == ["fresh", "odd", "rows"] and scored(desk) == []
    dry = subprocess.run([*order, "--dry-run"], capture_output=True, text=True, check=True)
    assert json.loads(dry.stdout)["done"] == reached and "scores" not in desk.orrery.lake.names()
    last = subprocess.run(order, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    told = json.loads(last.stdout)
    assert (told["rows"], told["resumed"], told["out_version"]) == (3000, reached, 1)
    log = log_of(desk)
    assert log.height == 3000 and log["_id"].n_unique() == 3000
    whole = done(desk, job(desk, out="whole"))
    assert whole.version.digest == desk.orrery.lake.version("scores").digest
    assert len(scored(desk)) == 2


def test_of_two_at_once_one_is_told(desk: Desk) -> None:
    one = job(desk)
    with parts(desk, one), pytest.raises(Conflict, match="another process"):
        done(desk, one)


# --- refused ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_refused_first(desk: Desk) -> None:
    cases: list[tuple[dict[str, Any], type[OrreryError], str]] = [
        ({"which": "9"}, NotFound, "no version 9"),
        ({"which": "old"}, NotUnderstood, "is no version"),
        ({"which": "2"}, NotAllowed, "never released to production"),
        ({"environment": "staging"}, NotFound, "no champion in staging"),
        ({"data": "flesh"}, NotFound, "Did you mean fresh"),
        ({"data": "fresh@7"}, NotFound, "no version 7"),
        ({"data": "fresh@new"}, NotUnderstood, "no version of a dataset"),
        ({"out": "rows"}, NotAllowed, "learns from"),
        ({"out": "fresh"}, NotAllowed, "to be scored"),
        ({"out": "odd"}, NotAllowed, "other columns than these predictions: a, b, broken"),
        ({"out": "Not A Name"}, NotUnderstood, "cannot be"),
    ]
    for given_, kind, words in cases:
        with pytest.raises(kind, match=words):
            job(desk, **given_)
    with pytest.raises(NotFound, match="no model"):
        plan(desk, "toys", "", "fresh", "scores", environment="production", log=True)
    assert job(desk, which="v2", environment="development").version.number == 2
    assert desk.orrery.lake.names() == ["fresh", "odd", "rows"]


def test_a_row_that_is_refused_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = desk.orrery.lake
    # A value that the contract of the policy refuses.
    strict = specs.to_dict(specs.from_dict({**SPEC, "serving": {"broken": "refuse"}}))
    commit = {"commit": "abd", "message": "m", "author": "ann", "spec": strict}
    facts = {"commit": "abd", "change": "redesign", "data": {"rows": 1}, "classes": [False, True]}
    about = {"model": "toy", "actor": "t", "why": "because"}
    desk.orrery.timeline.append(
        [
            Draft(kind="pushed", data=commit, **about),
            Draft(kind="built", data={"commit": "abd", "python": sys.executable}, **about),
            Draft(kind="trained", version=3, data={**facts, "run": "3", "artifact": "artifact-1"}, **about),
        ]
    )
    with pytest.raises(ContractBroken, match=r"Column a of row 3 of odd@v1 holds 1000000000[.]0"):
        done(desk, job(desk, "odd", which="3", environment="development"), rows_per_batch=2)
    # A value that the model's column cannot hold: no contract stands before it here.
    monkeypatch.setattr("orrery.actions.batches.promised", lambda contract, target: None)
    lake.append("worded", rows(20, 4).drop("y").with_columns(b=pl.lit("much")))
    with pytest.raises(NotUnderstood, match=r"Row 0: Column 'b': 'much'"):
        done(desk, job(desk, "worded"), rows_per_batch=8)
    # A row that the model's own code fails on.
    lake.append(
        "failing", rows(20, 4).drop("y").with_columns(a=pl.when(pl.int_range(20) == 13).then(999.0).otherwise("a"))
    )
    with pytest.raises(ProjectFailed, match="Rows 10 to 14: predict_proba failed: ValueError: nine hundred"):
        done(desk, job(desk, "failing"), rows_per_batch=5)
    assert "scores" not in lake.names() and scored(desk) == []
    assert parts(desk, job(desk, "failing")).done == 10  # what was scored before is kept


@pytest.mark.parametrize(
    ("address", "kind", "words"),
    [
        ("auto", NotAllowed, "Ray is not installed here"),
        ("ray://127.0.0.1:10001", NotUnderstood, "is no address of a Ray cluster"),
        ("local", NotUnderstood, "is no address of a Ray cluster"),
        ("127.0.0.1:1", NotAllowed, "No Ray cluster can be reached at 127.0.0.1:1"),
    ],
)
def test_a_cluster_that_cannot_be_asked_is_told_and_nothing_else_is_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, address: str, kind: type[OrreryError], words: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_ADDRESS", address)
    far = Desk(Orrery(load(desk.settings.home)))
    with pytest.raises(kind, match=words) as error:
        done(far, job(far))
    assert error.value.safe == "Nothing was done." and "scores" not in far.orrery.lake.names() and not scored(far)
    far.orrery.timeline.engine.dispose()
    monkeypatch.setenv("ORRERY_RAY", "none")
    assert load(desk.settings.home).ray == "" and done(desk, job(desk)).cluster == ""


def test_a_machine_that_does_not_see_the_version_says_so(desk: Desk) -> None:
    one = job(desk)
    start = desk.command(one.model, one.version)
    said = Answering(dataclasses.replace(start, needs=("/nowhere/python",)), 5.0).predict(b"")
    assert isinstance(said, Refused) and said.kind == "machine" and "does not see /nowhere/python" in said.what


def test_a_full_disk_stops_it_and_loses_nothing(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": range(10)})
    with Parts(tmp_path / "run") as kept:
        kept.add(frame.head(4))
        full = tmp_path / "run" / f"{4:015d}-{10:015d}.new"
        full.symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left"):
            kept.add(frame.slice(4))
        assert kept.done == 4
        full.unlink()
        kept.add(frame.slice(4))
        assert pl.concat(kept.blocks(3)).equals(frame) and [one.height for one in kept.blocks(3)] == [3, 3, 3, 1]


def test_the_command(desk: Desk) -> None:
    order = command(desk, "score", "toy", "--data", "odd@1", "--out", "scores", "--no-log", "--why", "A look")
    first = subprocess.run(order, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("scores@v1: 60 predictions in ") and "break the contract" in first.stderr
    again = subprocess.run(order, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (0, "Nothing to do: scores@v1 has these 60 predictions.\n")
    assert log_of(desk).height == 0
    shown = subprocess.run(command(desk, "timeline", "toy"), capture_output=True, text=True).stdout
    assert "scored" in shown and "60 rows of odd@v1 scored by version 1 of toy: A look, into scores@v1." in shown
    wrong = subprocess.run(
        command(desk, "score", "toy", "--data", "odd", "--out", "rows"), capture_output=True, text=True
    )
    assert wrong.returncode == 1 and "Nothing was done." in wrong.stderr


# --- parts --------------------------------------------------------------------------------------------------------


def test_one_version_of_many_blocks(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.append("t", pl.DataFrame({"x": [1], "old": ["o"]}))
    blocks = [pl.DataFrame({"x": [2, 3], "new": ["n", None]}), pl.DataFrame({"x": [4], "new": ["m"]})]
    one = lake.append_blocks("t", lambda: iter(blocks), key="k", note="Many.")
    two = lake.append_blocks("t", lambda: iter(blocks), key="k")
    assert one == two and (one.version, one.rows_added, one.rows) == (2, 3, 4)
    read = lake.read("t").polars()
    assert read.to_dict(as_series=False) == {
        "x": [1, 2, 3, 4],
        "old": ["o", *[None] * 3],
        "new": [None, "n", None, "m"],
    }
    assert lake.read("t", 1).polars().columns == ["x", "old"]
    assert lake.append("t", pl.DataFrame({"x": [5]})).rows == 5 and lake.read("t").polars()["x"].to_list()[-1] == 5
    with pytest.raises(NotUnderstood, match="nothing to add"):
        lake.append_blocks("t", lambda: iter(()), key="none")
    fresh = lake.append_blocks("made", lambda: iter(blocks), key="k")
    assert fresh.version == 1 and lake.read("made").polars().height == 3


def test_a_source_is_logged_once_however_it_is_handed_in(tmp_path: Path) -> None:
    log = PredictionLog(Lake(str(tmp_path)), "toy")
    now = datetime(2024, 1, 1, tzinfo=UTC)
    names = ["_id", "_at", "_environment", "_version", "_role"]

    def portion(start: int, stop: int) -> pl.DataFrame:
        return pl.DataFrame(
            [(str(at), now, "production", 1, "batch") for at in range(start, stop)], names, orient="row"
        )

    added = [log.advance("s", start, portion(start, stop)) for start, stop in ((0, 4), (0, 4), (2, 7), (7, 9), (0, 9))]
    assert added == [4, 0, 3, 2, 0]
    assert log.advance("other", 0, portion(0, 2)) == 2
    assert log.rows(None, None, None).collect()["_id"].to_list() != [] and log.table.version("rows:x") is None


def test_the_columns_of_each_task() -> None:
    about = {"model": "m", "target": "y", "rows_input": "r", "columns": {}, "features": "r"}
    three = Manifest(task="multiclass", classes=("x", "y", "z"), **about)
    found = answers(three, np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]]))
    assert {name: list(values) for name, values in found.items()} == {
        "probability_0": [0.1, 0.5],
        "probability_1": [0.2, 0.5],
        "probability_2": [0.7, 0.0],
        "prediction": [2, 0],
    }
    assert list(answers(Manifest(task="regression", **about), np.array([[3.5]]))) == ["prediction"]


VALUES = st.one_of(st.none(), st.floats(width=16), st.integers(-3, 3).map(float))
WORDS = st.one_of(st.none(), st.sampled_from(["a", "b", "c", ""]))
RULE = st.fixed_dictionaries(
    {"type": st.sampled_from(["number", "integer", "string", "boolean", "other", "date"])},
    optional={
        "min": st.integers(-2, 2),
        "max": st.integers(-2, 2),
        "nulls": st.sampled_from([0, 1]),
        "categories": st.lists(st.sampled_from(["a", "b"])),
        "closed": st.booleans(),
    },
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    numbers=st.lists(VALUES, min_size=4, max_size=4),
    others=st.lists(VALUES, min_size=4, max_size=4),
    words=st.lists(WORDS, min_size=4, max_size=4),
    rules=st.dictionaries(st.sampled_from(["n", "m", "w", "i", "gone"]), RULE),
)
def test_frames_break_a_contract_where_requests_do(
    numbers: list[Any], others: list[Any], words: list[Any], rules: dict[str, Any]
) -> None:
    whole = [None if value is None or value != value or abs(value) > 9 else int(value) for value in numbers]
    frame = pl.DataFrame(
        {"n": numbers, "m": others, "w": words, "i": whole},
        schema={"n": pl.Float64, "m": pl.Float64, "w": pl.String, "i": pl.Int64},
    )
    contract = {"columns": rules, "ordered": [["n", "m"], ["n", "gone"]]}
    columns = frame.to_dict(as_series=False)
    wanted = Checker(contract).broken(columns, 4)
    found = Promises(contract).broken(frame)
    assert ([sorted(row) for row in found] if found else None) == ([sorted(row) for row in wanted] if wanted else None)
    if found:
        expected = pl.DataFrame(masked_values(columns, found), schema=frame.schema)
        assert masked(frame, found).equals(expected)
